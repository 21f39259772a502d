/* Options of AddressSanitizer's runtime (`make sanitize`), which children have too, whatever environment they are given:
 * loaded before libasan, whose own, weak function of this name gives none. libasan would call setrlimit(), which is the
 * shim's, to forbid core dumps before any checked code can run; and that a program leaks is not our concern. */
#define EXPORT __attribute__((visibility("default")))

EXPORT const char *__asan_default_options(void);

EXPORT const char *__asan_default_options(void) { return "verify_asan_link_order=0:disable_coredump=0:detect_leaks=0"; }
