/* Tables and words for people. */
#ifndef FUSEFS_LOG_TEXT_H
#define FUSEFS_LOG_TEXT_H

#include "cli/log_printer.h"

extern const struct fsd_log_printer fsd_log_as_text;

#endif
