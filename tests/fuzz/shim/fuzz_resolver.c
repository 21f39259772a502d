/* The name that was resolved to an address is the one that goes along with it; an address as text is no name. */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum { LONGEST_NAME = 253, MOST = 4 };

static struct addrinfo *list_of_addresses(void)
{
    struct addrinfo *list = NULL;
    for (size_t count = next_below(MOST); count > 0; count--) {
        struct addrinfo *one = calloc(1, sizeof *one);
        uint8_t choice = next_byte();
        size_t size = choice & 1 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if (choice != 2) {
            one->ai_addr = calloc(1, size);
            next_bytes(one->ai_addr, size);
            one->ai_addr->sa_family = choice & 1 ? AF_INET : choice == 4 ? AF_UNIX : AF_INET6;
        }
        one->ai_addrlen = (socklen_t)size;
        one->ai_next = list;
        list = one;
    }
    return list;
}

static void free_list(struct addrinfo *list)
{
    while (list) {
        struct addrinfo *next = list->ai_next;
        free(list->ai_addr);
        free(list);
        list = next;
    }
}

static int fake_getaddrinfo(const char *restrict node, const char *restrict service,
                            const struct addrinfo *restrict hints, struct addrinfo **restrict result)
{
    (void)node, (void)service, (void)hints;
    *result = list_of_addresses();
    return next_byte() == 0 ? EAI_AGAIN : 0;
}

/* gethostbyname()'s answer: addresses in blocks of just their size. */
static struct hostent *fake_gethostbyname(const char *name)
{
    static struct hostent host;
    static char *addresses[MOST + 1];
    for (size_t i = 0; i <= MOST; i++) {
        free(addresses[i]);
        addresses[i] = NULL;
    }
    uint8_t choice = next_byte();
    if (choice == 0)
        return NULL;
    host = (struct hostent){.h_addrtype = choice & 1   ? AF_INET
                                          : choice & 2 ? AF_INET6
                                                       : next_byte(),
                            .h_addr_list = addresses};
    host.h_name = NULL;
    host.h_length = host.h_addrtype == AF_INET ? 4 : 16;
    for (size_t i = 0, count = next_below(MOST); i < count; i++) {
        addresses[i] = calloc(1, (size_t)host.h_length);
        next_bytes(addresses[i], (size_t)host.h_length);
    }
    (void)name;
    return &host;
}

static bool is_address(const char *text) { return strchr(text, ':') || strspn(text, "0123456789.") == strlen(text); }

static void look_up(const struct sockaddr *address, const char *expected)
{
    size_t room = next_byte() & 3 ? LONGEST_NAME : next_below(LONGEST_NAME);
    char *name = malloc(room);
    size_t length = name_of(address, name, room);
    must(length <= room, "a name fits where it is put");
    if (expected && room == LONGEST_NAME)
        must(length == strlen(expected) && memcmp(name, expected, length) == 0,
             "the last name asked for is remembered");
    free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kernel_begin(data, size);
    real_calls.getaddrinfo = fake_getaddrinfo;
    real_calls.gethostbyname = fake_gethostbyname;
    while (bytes_left() > 0) {
        char *node = next_string(300);
        bool kept = !is_address(node) && strlen(node) > 0 && strlen(node) <= LONGEST_NAME;
        if (next_byte() & 1) {
            struct addrinfo *list = NULL;
            int status = getaddrinfo(next_byte() ? node : NULL, NULL, NULL, &list);
            for (struct addrinfo *one = list; one; one = one->ai_next)
                if (one->ai_addr)
                    look_up(one->ai_addr, NULL);
            free_list(list);
            (void)status;
        } else {
            struct hostent *host = gethostbyname(node);
            struct sockaddr_in6 address = {.sin6_family = AF_INET6};
            if (host && host->h_addrtype == AF_INET6 && host->h_addr_list[0]) {
                memcpy(&address.sin6_addr, host->h_addr_list[0], 16);
                look_up((struct sockaddr *)&address, kept ? node : NULL);
            }
        }
        free(node);
    }
    return 0;
}
