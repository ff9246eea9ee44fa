/* The lowest level of several nodes. */
#include "format.h"

unsigned rlog_format_lowest(unsigned own, const unsigned *levels, size_t count)
{
	unsigned lowest = rlog_format_or_first(own);

	for (size_t i = 0; i < count; i++)
		if (rlog_format_or_first(levels[i]) < lowest)
			lowest = rlog_format_or_first(levels[i]);
	return lowest;
}
