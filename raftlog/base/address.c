/* HOST:PORT as text, and as what connect() wants. */
#include "base/address.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>

int rlog_address_split(const char *address, char host[RLOG_ADDRESS_MAX],
		       char port[RLOG_ADDRESS_MAX])
{
	const char *colon = strrchr(address, ':');
	const char *begin = address;
	size_t host_len;

	if (colon == NULL || colon[1] == 0 || strlen(address) >= RLOG_ADDRESS_MAX)
		return -EINVAL;
	host_len = (size_t)(colon - address);
	if (host_len >= 2 && address[0] == '[' && colon[-1] == ']') {
		begin++;
		host_len -= 2;
	}
	if (host_len == 0)
		return -EINVAL;
	memcpy(host, begin, host_len);
	host[host_len] = 0;
	strcpy(port, colon + 1);
	return 0;
}

int rlog_address_resolve(const char *address, bool names, struct sockaddr_storage *out,
			 socklen_t *len)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *found;
	char host[RLOG_ADDRESS_MAX], port[RLOG_ADDRESS_MAX];

	if (rlog_address_split(address, host, port) != 0)
		return -EINVAL;
	if (!names)
		hints.ai_flags |= AI_NUMERICHOST;
	if (getaddrinfo(host, port, &hints, &found) != 0)
		return -ENOENT;
	memcpy(out, found->ai_addr, found->ai_addrlen);
	*len = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}
