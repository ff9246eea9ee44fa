/* Arrays that grow, see array.h. */
#include "base/array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int wrep_array_reserve(void *array, size_t *capacity, size_t count, size_t item_bytes)
{
	size_t wanted = count + count / 2 + 16;
	void *items;

	if (count <= *capacity)
		return 0;
	/* By its bytes: a pointer to a pointer of another type must not be written through. */
	memcpy(&items, array, sizeof items);
	items = reallocarray(items, wanted, item_bytes);
	if (items == NULL)
		return -ENOMEM;
	memcpy(array, &items, sizeof items);
	*capacity = wanted;
	return 0;
}
