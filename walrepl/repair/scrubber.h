/* Every page of every database is read from the disk, slowly, again and again. */
#ifndef WALREPL_REPAIR_SCRUBBER_H
#define WALREPL_REPAIR_SCRUBBER_H

#include "base/wrep.h"

int wrep_scrub_start(struct wrep *w);
void wrep_scrub_stop(struct wrep *w);

#endif
