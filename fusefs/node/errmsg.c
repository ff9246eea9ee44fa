#include "node/errmsg.h"

#include <stdarg.h>
#include <stdio.h>

int fsd_fail(char errmsg[FSD_ERRMSG_SIZE], int rv, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(errmsg, FSD_ERRMSG_SIZE, format, args);
	va_end(args);
	return rv;
}
