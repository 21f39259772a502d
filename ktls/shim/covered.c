/* Whether the shim will be loaded into a program: the judgement of ktls/elf.py, made again before every exec, since the
 * program that a covered one starts would otherwise run with its connections in clear and no word of it.
 *
 * Only system calls and small stack buffers: this runs in vfork children and signal handlers.
 * Sources: elf(5); fs/binfmt_script.c (BINPRM_BUF_SIZE 256) and fs/exec.c (five rewrites), Linux 6.1; ld.so(8). */
#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "real.h"

enum { SCRIPT_HEAD = 256, SCRIPT_DEPTH = 5, HEADERS_MAX = 512, LOADER_MAX = 64, GO_NAME = 4, GO_BUILD_ID = 4 };

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
enum { OUR_ORDER = ELFDATA2LSB };
#else
enum { OUR_ORDER = ELFDATA2MSB };
#endif
enum { OUR_CLASS = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32 };

/* The dynamic loader that loaded us, its file's name: one that is known to honour LD_PRELOAD with this shim. */
static char our_loader[LOADER_MAX];
static ElfW(Half) our_machine;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The first object is the program; its PT_INTERP names the loader. */
static int look_at_program(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_INTERP)
            continue;
        uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        const char *path;
        memcpy(&path, &at, sizeof path);
        path = base_name(path);
        if (strlen(path) < LOADER_MAX)
            strcpy(our_loader, path);
    }
    return 1;
}

void covered_remember(void)
{
    extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));
    our_machine = __ehdr_start.e_machine;
    dl_iterate_phdr(look_at_program, NULL);
}

static bool read_at(int fd, void *to, size_t size, uint64_t offset)
{
    return offset <= INT64_MAX && pread(fd, to, size, (off_t)offset) == (ssize_t)size;
}

/* Go speaks to the kernel past libc, even where it is dynamically linked: its linker's note, or the tables it needs. */
static bool is_go_note(int fd, const ElfW(Phdr) * segment)
{
    ElfW(Nhdr) note;
    char name[GO_NAME];
    return read_at(fd, &note, sizeof note, segment->p_offset) && note.n_namesz == GO_NAME &&
           note.n_type == GO_BUILD_ID && read_at(fd, name, sizeof name, segment->p_offset + sizeof note) &&
           memcmp(name, "Go\0", GO_NAME) == 0;
}

static bool has_go_sections(int fd, const ElfW(Ehdr) * header)
{
    ElfW(Shdr) names, section;
    if (header->e_shentsize != sizeof section || header->e_shnum > HEADERS_MAX ||
        !read_at(fd, &names, sizeof names, header->e_shoff + (uint64_t)header->e_shstrndx * sizeof names))
        return false;
    for (size_t i = 0; i < header->e_shnum; i++) {
        char name[sizeof ".go.buildinfo"] = "";
        if (!read_at(fd, &section, sizeof section, header->e_shoff + i * sizeof section))
            return false;
        if (pread(fd, name, sizeof name - 1, (off_t)(names.sh_offset + section.sh_name)) > 0 &&
            (strcmp(name, ".go.buildinfo") == 0 || strcmp(name, ".gopclntab") == 0))
            return true;
    }
    return false;
}

/* Why an ELF file would not be covered; NULL when it would. */
static const char *why_not_image(int fd, const char *path, const ElfW(Ehdr) * header)
{
    if (header->e_ident[EI_CLASS] != OUR_CLASS || header->e_ident[EI_DATA] != OUR_ORDER ||
        header->e_machine != our_machine)
        return "is for another word size or machine than the shim";
    if (header->e_phentsize != sizeof(ElfW(Phdr)) || header->e_phnum > HEADERS_MAX)
        return "has a malformed ELF header";
    bool interpreted = false;
    for (size_t i = 0; i < header->e_phnum; i++) {
        ElfW(Phdr) segment;
        char loader[PATH_MAX];
        if (!read_at(fd, &segment, sizeof segment, header->e_phoff + i * sizeof segment))
            return "has a malformed ELF header";
        if (segment.p_type == PT_NOTE && is_go_note(fd, &segment))
            return "is a Go program: it speaks to the kernel past the shim";
        if (segment.p_type != PT_INTERP)
            continue;
        if (segment.p_filesz < 2 || segment.p_filesz > sizeof loader ||
            !read_at(fd, loader, segment.p_filesz, segment.p_offset) || loader[segment.p_filesz - 1] != 0)
            return "has a malformed ELF header";
        if (our_loader[0] && strcmp(base_name(loader), our_loader) != 0)
            return "is loaded by another C library's loader than the shim is built for";
        interpreted = true;
    }
    if (has_go_sections(fd, header))
        return "is a Go program: it speaks to the kernel past the shim";
    /* The loader itself, started as a program (ldd does), honours LD_PRELOAD like any program it loads. */
    return interpreted || (our_loader[0] && strcmp(base_name(path), our_loader) == 0) ? NULL : "is statically linked";
}

static const char *why_not_privileged(int fd, const struct stat *status)
{
    if ((status->st_mode & S_ISUID) && status->st_uid != geteuid())
        return "is set-user-ID: the loader would ignore the shim";
    if ((status->st_mode & S_ISGID) && (status->st_mode & S_IXGRP) && status->st_gid != getegid())
        return "is set-group-ID: the loader would ignore the shim";
    if (fgetxattr(fd, "security.capability", NULL, 0) >= 0)
        return "has file capabilities: the loader would ignore the shim";
    return NULL;
}

/* The interpreter in a script's first line, as the kernel finds it; in place. NULL: not one it would take. */
static char *interpreter_of(char *head, size_t size)
{
    char *end = memchr(head, '\n', size);
    bool whole = end != NULL || size < SCRIPT_HEAD;
    end = end ? end : head + size;
    char *start = head + 2;
    while (start < end && (*start == ' ' || *start == '\t'))
        start++;
    char *stop = start;
    while (stop < end && *stop != ' ' && *stop != '\t' && *stop != 0)
        stop++;
    if (stop == start || (stop == end && !whole))
        return NULL;
    *stop = 0;
    return start;
}

/* One file: 0 when it is covered or none of our business (*next: the interpreter to look at), or an errno. */
static int check_file(int fd, const char *path, char next[SCRIPT_HEAD + 1], const char **why)
{
    union {
        char head[SCRIPT_HEAD + 1];
        ElfW(Ehdr) header;
    } start;
    struct stat status;
    ssize_t size = pread(fd, start.head, SCRIPT_HEAD, 0);
    next[0] = 0;
    if (size < 0 || fstat(fd, &status) != 0)
        return 0; /* a directory, for one: the kernel says it better */
    if ((*why = why_not_privileged(fd, &status)) != NULL)
        return EPERM;
    if (size >= 2 && memcmp(start.head, "#!", 2) == 0) {
        start.head[size] = 0;
        const char *interpreter = interpreter_of(start.head, (size_t)size);
        if (interpreter)
            strcpy(next, interpreter);
        return interpreter ? 0 : ENOEXEC;
    }
    if ((size_t)size < sizeof start.header || memcmp(start.head, ELFMAG, SELFMAG) != 0)
        return ENOEXEC; /* shells and execvp() take it for a script; whatever else the kernel could do is not covered */
    return (*why = why_not_image(fd, path, &start.header)) ? EPERM : 0;
}

/* What may be executed there, opened; -1 with ENOENT: nothing, and the kernel says why; -1 with EACCES: not for us to read. */
static int open_program(int directory, const char *path, int flags)
{
    struct stat status;
    char self[32] = "/proc/self/fd/";
    if (fstatat(directory, path, &status, flags & (AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) != 0 ||
        !S_ISREG(status.st_mode) || faccessat(directory, path, X_OK, AT_EACCESS | (flags & AT_EMPTY_PATH)) != 0) {
        errno = ENOENT;
        return -1;
    }
    if (path[0] == 0) { /* a descriptor may be O_PATH or past its beginning: open the file anew */
        size_t end = strlen(self), digits = 1;
        for (int rest = directory; rest >= 10; rest /= 10)
            digits++;
        for (int rest = directory; digits > 0; rest /= 10)
            self[end + --digits] = (char)('0' + rest % 10);
        path = self, directory = AT_FDCWD;
    }
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && errno != EACCES)
        errno = ENOENT;
    return fd;
}

int covered_check(int directory, const char *path, int flags, const char **why)
{
    char name[SCRIPT_HEAD + 1], next[SCRIPT_HEAD + 1];
    *why = NULL;
    for (int depth = 0; depth <= SCRIPT_DEPTH; depth++) {
        int fd = open_program(directory, path, flags);
        if (fd < 0) {
            *why = errno == EACCES ? "cannot be read, so it cannot be checked" : NULL;
            return errno == EACCES ? EACCES : 0;
        }
        int error = check_file(fd, path, next, why);
        real(close)(fd);
        if (error != 0 || next[0] == 0)
            return error;
        path = strcpy(name, next);
        directory = AT_FDCWD, flags = 0;
    }
    return ELOOP;
}
