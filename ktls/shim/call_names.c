/* The resolver: connect() sees an address, the certificate bears a name. We remember which name was asked for. */
#include <netinet/in.h>
#include <string.h>

#include "real.h"

enum { NAMES = 256, LONGEST = 254 };

/* One answer. `version` is odd while it is being written, so that a reader (connect() in a signal handler, too) never
 * waits and never uses a half-written name. */
struct answer {
    _Atomic uint32_t version;
    sa_family_t family;
    unsigned char address[16];
    char name[LONGEST];
};

static struct answer answers[NAMES];
static _Atomic uint32_t next;

static size_t raw_address(const struct sockaddr *address, unsigned char out[16])
{
    memset(out, 0, 16);
    if (address->sa_family == AF_INET) {
        memcpy(out, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
        return 4;
    }
    if (address->sa_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
        return 16;
    }
    return 0;
}

/* A v4-mapped IPv6 address and the IPv4 address it maps are the same host. */
static void normalise(sa_family_t *family, unsigned char address[16])
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (*family != AF_INET6 || memcmp(address, mapped, sizeof mapped) != 0)
        return;
    memmove(address, address + 12, 4);
    memset(address + 4, 0, 12);
    *family = AF_INET;
}

static void remember(sa_family_t family, const unsigned char raw[16], const char *name)
{
    unsigned char address[16];
    size_t length = strlen(name);
    if (length == 0 || length >= LONGEST)
        return;
    memcpy(address, raw, 16);
    normalise(&family, address);
    struct answer *answer = &answers[atomic_fetch_add(&next, 1) % NAMES];
    uint32_t version = atomic_load(&answer->version);
    if ((version & 1) || !atomic_compare_exchange_strong(&answer->version, &version, version + 1))
        return; /* another thread is writing it: its answer is as good as ours */
    answer->family = family;
    memcpy(answer->address, address, 16);
    memcpy(answer->name, name, length + 1);
    atomic_store(&answer->version, version + 2);
}

size_t name_of(const struct sockaddr *address, char *name, size_t size)
{
    unsigned char raw[16];
    sa_family_t family = address->sa_family;
    if (raw_address(address, raw) == 0)
        return 0;
    normalise(&family, raw);
    uint32_t newest = atomic_load(&next);
    for (uint32_t i = 0; i < NAMES; i++) {
        struct answer *answer = &answers[(newest - 1 - i) % NAMES];
        uint32_t version = atomic_load(&answer->version);
        if (version == 0 || (version & 1) || answer->family != family || memcmp(answer->address, raw, 16) != 0)
            continue;
        size_t length = strnlen(answer->name, LONGEST);
        if (length > size)
            continue;
        memcpy(name, answer->name, length);
        if (atomic_load(&answer->version) == version)
            return length;
    }
    return 0;
}

/* An address written as text is not a name; the certificate must then bear the address. */
static bool is_name(const char *text)
{
    if (text == NULL || strchr(text, ':'))
        return false;
    return strspn(text, "0123456789.") != strlen(text);
}

EXPORT int getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints,
                       struct addrinfo **restrict result)
{
    int status = real(getaddrinfo)(node, service, hints, result);
    if (status != 0 || !is_name(node))
        return status;
    for (const struct addrinfo *one = *result; one; one = one->ai_next) {
        unsigned char raw[16];
        if (one->ai_addr && raw_address(one->ai_addr, raw))
            remember(one->ai_addr->sa_family, raw, node);
    }
    return status;
}

static void remember_host(const struct hostent *host, const char *name)
{
    if (host == NULL || !is_name(name) || (host->h_addrtype != AF_INET && host->h_addrtype != AF_INET6))
        return;
    for (char **one = host->h_addr_list; one && *one; one++) {
        unsigned char raw[16] = {0};
        memcpy(raw, *one, host->h_addrtype == AF_INET ? 4 : 16);
        remember((sa_family_t)host->h_addrtype, raw, name);
    }
}

EXPORT struct hostent *gethostbyname(const char *name)
{
    struct hostent *host = real(gethostbyname)(name);
    remember_host(host, name);
    return host;
}

EXPORT struct hostent *gethostbyname2(const char *name, int family)
{
    struct hostent *host = real(gethostbyname2)(name, family);
    remember_host(host, name);
    return host;
}

EXPORT int gethostbyname_r(const char *restrict name, struct hostent *restrict host, char *restrict buffer,
                           size_t length, struct hostent **restrict result, int *restrict error)
{
    int status = real(gethostbyname_r)(name, host, buffer, length, result, error);
    if (status == 0)
        remember_host(*result, name);
    return status;
}

EXPORT int gethostbyname2_r(const char *restrict name, int family, struct hostent *restrict host, char *restrict buffer,
                            size_t length, struct hostent **restrict result, int *restrict error)
{
    int status = real(gethostbyname2_r)(name, family, host, buffer, length, result, error);
    if (status == 0)
        remember_host(*result, name);
    return status;
}
