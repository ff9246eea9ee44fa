/* One JSON object a line. cmd_log.c says what is in them. */
#ifndef FUSEFS_LOG_JSON_H
#define FUSEFS_LOG_JSON_H

#include "cli/log_printer.h"

extern const struct fsd_log_printer fsd_log_as_json;

#endif
