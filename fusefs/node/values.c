#include "node/values.h"

#include <stdlib.h>
#include <string.h>
#include "node/escape.h"

json_t *fsd_bytes_json(const char *bytes)
{
	char *text = fsd_escaped(FSD_FOR_JSON, bytes);
	json_t *value = text ? json_string(text) : NULL;

	free(text);
	return value;
}

json_t *fsd_number_json(uint64_t number)
{
	if (number <= INT64_MAX)
		return json_integer((json_int_t)number);
	return json_sprintf("%" PRIu64, number);
}

json_t *fsd_hex_json(int digits, uint64_t number)
{
	return json_sprintf("%0*" PRIx64, digits, number);
}

char *fsd_bytes_of(const json_t *string)
{
	char *text = json_is_string(string) ? strdup(json_string_value(string)) : NULL;

	if (text && fsd_unescape(text)) {
		free(text);
		return NULL;
	}
	return text;
}

uint64_t fsd_number_of(const json_t *number)
{
	if (json_is_string(number))
		return strtoull(json_string_value(number), NULL, 10);
	return (uint64_t)json_integer_value(number);
}
