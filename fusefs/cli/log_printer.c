#include "cli/log_printer.h"

const char *fsd_log_type_word(const struct rlog_dump_entry *entry, const struct wrep_description *d)
{
	static const char *const kinds[] = {"create",  "unlink", "setattr", "pages", "commit",
					    "discard", "group",	 "mkdir",   "rmdir", "rename"};

	switch (entry->type) {
	case RLOG_DUMP_COMMAND:
		return d ? kinds[d->kind] : "unknown";
	case RLOG_DUMP_BARRIER:
		return "barrier";
	case RLOG_DUMP_MEMBERS:
		return "members";
	case RLOG_DUMP_TRUNCATION:
		return "truncation";
	case RLOG_DUMP_UNKNOWN:
		break;
	}
	return "unknown";
}
