/* The shim: an LD_PRELOAD library that puts a gate in front of a program's TCP connections until their TLS handshake is
 * done by the agent, and then takes care of what kTLS does differently from TCP. docs/protocol.md is the contract.
 *
 * Rules of this directory:
 * - No allocation and no lock in a wrapped call; stack buffers are small; errno is changed only with a -1.
 * - The kernel holds the truth: what a descriptor is can be read back from descriptor numbers (fd + base) and from socket
 *   names at any time. The slot table is a hint that saves the question, rebuilt after exec, never edited by a vfork child.
 * - One file per family of calls; the exported symbol decides by the descriptor's state and hands on.
 */
#ifndef KTLS_SHIM_H
#define KTLS_SHIM_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#define EXPORT __attribute__((visibility("default")))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* --- slots: what a descriptor is (slot.c) --------------------------------------------------------------------------- */

enum state {
    UNKNOWN, /* not looked at since start, exec or close */
    PLAIN,   /* none of our business */
    GATED,   /* the descriptor is gate end A, the socket R is at fd + base; the handshake is running */
    MOVING,  /* a thread is putting R in A's place */
    RELAY,   /* as GATED, handshake done: A carries clear text, R answers questions */
    KERNEL,  /* the descriptor is R with keys in the kernel; the leash A is at fd + base */
    FAILED,  /* the descriptor is A for good; every use fails with the slot's errno */
};

/* A slot is one word: state, flags, an errno, and whose turn it is: how often the number has been given to something new.
 * It is always read and replaced whole, so that a thread that was late cannot take one connection for another. */
typedef uint64_t slot_t;
#define STATE_MASK 0x0000000fu
#define OUTBOUND 0x00000010u      /* made by connect(): "not connected" until the gate opens */
#define STRICT_EOF 0x00000020u    /* end of file without close_notify is an error */
#define CONFIRM_IN 0x00000040u    /* this kernel's poll says readable for a partial record */
#define CAN_REKEY 0x00000080u     /* this kernel can take new keys: look behind short reads for a KeyUpdate */
#define SEEN_EOF 0x00000100u      /* close_notify has been taken: end of file, and it stays so */
#define SHUT_WRITE 0x00000200u    /* the program has ended its direction */
#define SHUT_READ 0x00000400u     /* the program does not want to read: end of file proves nothing */
#define NODELAY_KNOWN 0x00000800u /* the program set TCP_NODELAY while gated ... */
#define NODELAY_ON 0x00001000u    /* ... to this */
#define TICKETS_DUE \
    0x00004000u /* a TLS 1.3 server's tickets may come before its first data: readable, but nothing to read */
#define REKEYING 0x00002000u    /* the agent is changing our keys: writers wait until the leash is empty */
#define COPIED 0x00008000u      /* dup() and its kin were here: closing one copy ends no registration */
#define TOLD 0x00010000u        /* the program has heard that its relayed connection is lost */
#define ERROR_TOLD 0x00020000u  /* FAILED and NEVER_STOOD: the program has had the errno, once, as TCP gives it */
#define NEVER_STOOD 0x00040000u /* FAILED: TCP itself did not connect, so that the program may try again */
#define FIRST_WRITE \
    0x00080000u        /* KERNEL: nothing has been written yet; a ClientHello would be of the program's own TLS */
#define ERRNO_SHIFT 20 /* 12 bits: an errno that is final for reads */
#define ERRNO_MASK 0xfffu
#define TURN_SHIFT 32

static inline enum state slot_state(slot_t slot) { return (enum state)(slot & STATE_MASK); }
static inline int slot_errno(slot_t slot) { return (int)(slot >> ERRNO_SHIFT & ERRNO_MASK); }
static inline uint32_t slot_turn(slot_t slot) { return (uint32_t)(slot >> TURN_SHIFT); }
static inline bool is_tls(slot_t slot) { return slot_state(slot) > PLAIN; }
static inline slot_t with_state(slot_t slot, enum state state) { return (slot & ~(slot_t)STATE_MASK) | state; }
static inline slot_t with_turn(slot_t of, slot_t slot) { return (of & ~(slot_t)0 << TURN_SHIFT) | (uint32_t)slot; }
static inline slot_t with_errno(slot_t slot, int error)
{
    return (slot & ~((slot_t)ERRNO_MASK << ERRNO_SHIFT)) | (slot_t)error << ERRNO_SHIFT;
}

enum { SLOT_COUNT = 65536 }; /* descriptors above this are refused TLS, never left in clear */

extern int shim_base;                 /* program descriptors are below; fd + base is hidden; 2 * base is the channel */
slot_t slot_of(int fd);               /* the descriptor's slot, asking the kernel when it is UNKNOWN */
void slot_begin(int fd, slot_t slot); /* the number is something new: its next turn */
void slot_set(int fd, slot_t slot); /* what it has become; nothing, if it is not the turn any more that `slot` is of */
void slot_flag(int fd, slot_t flags);                 /* sets flags */
void slot_unflag(int fd, slot_t flags);               /* takes them back */
bool slot_swap(int fd, slot_t expected, slot_t slot); /* compare and exchange; false also in a vfork child */
bool slots_are_ours(void);                            /* false in a vfork child, which shares its parent's memory */
void slots_after_fork(void);
static inline int hidden(int fd) { return fd + shim_base; }
static inline bool is_hidden(int fd) { return shim_base > 0 && fd >= shim_base && fd <= 2 * shim_base + 15; }
int hide(int fd, int at, bool cloexec);  /* copies fd to exactly `at`; -1 with EMFILE when it is taken */
int hide_aside(int fd);                  /* copies it above all others, for a moment */
int place(int fd, int at, bool cloexec); /* copies it over what is at `at`, above the program's limit or not */
bool has_cloexec(int fd);
void forget(int fd); /* after the descriptor is closed: closes its hidden twin */
void each_passed(const struct msghdr *header, void (*act)(int fd)); /* every descriptor in its SCM_RIGHTS */
int64_t now_ms(void);                                               /* monotonic */

/* --- the limit on descriptors (call_limits.c) ------------------------------------------------------------------------ */

void limits_start(void);
void limits_after_fork(void);
void limits_raise(void); /* room for hidden descriptors, and for our own where the program has none left ... */
void limits_lower(void); /* ... until this */
bool spawn_begin(
    void); /* true: raised, for a child whose file actions copy hidden descriptors (it takes it back itself) */

/* --- the gate (gate.c) and the channel (channel.c) ------------------------------------------------------------------ */

enum request_kind { REQUEST_CONNECT = 1, REQUEST_ACCEPT = 2, NOTICE_UNCOVERED = 3 };
enum { REQUEST_IN_PROGRESS = 1, NOTICE_ALLOWED = 2 };

struct request {
    enum request_kind kind;
    unsigned flags;
    const struct sockaddr *address; /* of the peer; may be NULL */
    socklen_t address_length;
};

/* Asks policy about the connection on fd and puts the gate up if it says tls.
 * Returns 0 (go on; look at the slot for what it became) or an errno: nothing may pass and the connection is shut. */
int gate_raise(int fd, const struct request *request);

/* Looks whether the gate has opened and does what follows. Never blocks. Returns the slot as it is then. */
slot_t gate_poll(int fd);

/* As gate_poll, but waits for the outcome when the descriptor is a blocking one (or `force`).
 * Returns the slot; still GATED means: would block (errno EAGAIN) or interrupted (errno EINTR). FAILED with EBADF: another
 * thread has closed the descriptor meanwhile, and its number may be another connection's, bare or not. */
slot_t gate_wait(int fd, bool force, int timeout_option);

/* At start: standard streams that are connections. */
void stdio_start(void);

/* The errno of a FAILED descriptor. What TCP itself refused is told once; then 0: reads end, writes are EPIPE. A failed
 * handshake is told every time: a thread that reads must not take it for the end of an empty stream, because another
 * thread, writing, was told. */
int gate_failure(int fd, slot_t slot);

/* A descriptor whose connect() failed is its unconnected socket again. */
void gate_lower(int fd);

/* A socket's SO_RCVTIMEO or SO_SNDTIMEO in milliseconds; -1: for ever. */
int gate_timeout(int fd, int option);

/* What the leash or gate end `a` says (docs/protocol.md, "The gate", step 1). */
struct outcome {
    char kind;    /* 'K', 'R', 'C', 'F'; 0: not open yet; '?': not a gate end at all */
    int error;    /* errno for 'F' */
    slot_t flags; /* STRICT_EOF, CONFIRM_IN, CAN_REKEY, TICKETS_DUE */
};
struct outcome gate_outcome(int a);
int gate_relay_end(int r);   /* what end of file on a relayed connection is: 0, or an errno */
int gate_relay_lost(int fd); /* an errno for a relayed connection that is lost, until the program has been told; 0 */
slot_t gate_marks(int a);    /* SEEN_EOF and a final errno, as any holder of the leash noted them */
/* Tells the agent something by the leash. It has named the gate before it drained it, so there may be no room yet: then
 * this waits, for the moment that takes. */
enum { LEASH_MESSAGE = 4 };
void gate_tell(int a, const char message[LEASH_MESSAGE]);
void gate_mark(int a, const char *kind, int error); /* notes "eof" or "err" for all holders */

enum { AGENT_WAIT_MS = 15000 }; /* it answers at once; a bound keeps a stuck one from hanging the program */
bool channel_send(const void *message, size_t length, const int descriptors[2]);

/* Tells the agent of a program that is not covered, for its report; does not matter if it cannot be told. */
enum { NOTICE_MAX = 440 };
void channel_notice(const char *text, size_t length, bool allowed);

/* --- records (record.c): what a kTLS socket does that TCP does not ---------------------------------------------------- */

extern atomic_bool shim_sandboxed;
/* The program has a seccomp filter of its own (sandbox.c): read() and write() it is then, and nothing besides. */
static inline bool sandboxed(void) { return atomic_load_explicit(&shim_sandboxed, memory_order_relaxed); }
long sandbox_seccomp(unsigned operation, unsigned flags, void *arguments);

struct reading {
    int fd;
    const struct iovec *iov;
    int count;
    int flags;
};
size_t wanted(const struct reading *reading); /* bytes */

/* The real call, of the plainest kind that does it: a program's seccomp filter may let read() pass and recvmsg() not (the
 * sandbox of sshd). */
ssize_t read_real(const struct reading *reading);

/* Completes a read on a KERNEL descriptor whose real call gave `got` (and errno): control records are taken and acted
 * on, and the read is done again. Returns what the program gets, errno set with -1. */
ssize_t record_finish(const struct reading *reading, ssize_t got);
ssize_t record_read(const struct reading *reading); /* the whole read, real call included */
bool write_allowed(
    int fd); /* whether a write may go on, waiting for the handshake; if not, errno is set (call_write.c) */
int record_clear(
    int fd); /* control record at the head (splice's EINVAL): 1 gone, 0 end of file, -1 error, 2 none there */
ssize_t record_at_end(int fd);  /* what a read that got 0 means: 0, or -1 for a truncated stream */
ssize_t record_pending(int fd); /* bytes of clear text that can be read now */
bool record_ready(int fd);      /* false: poll says readable, but no whole record is there */
bool record_rekeyed(int fd);    /* waits until the agent has changed the keys; false: it does not */
static inline bool must_confirm(slot_t slot) { return (slot & (CONFIRM_IN | TICKETS_DUE)) != 0 && !sandboxed(); }
void record_close_notify(int fd); /* sends it, flushing what MSG_MORE held back */

/* --- epoll and poll (call_epoll.c, call_poll.c) ------------------------------------------------------------------------ */

void epoll_leave(int fd);              /* takes fd's file out of every epoll set it is known to be in */
void epoll_enter(int fd, bool marked); /* puts fd (now another file) back; marked: its events come through us */
void epoll_closed(int fd);             /* fd is closed next: the agent's copy would keep it in this process's sets */
void epoll_unmark(int fd);             /* the gate stays for good: events carry the program's data again */

/* --- names (call_names.c) --------------------------------------------------------------------------------------------- */

size_t name_of(const struct sockaddr *address, char *name, size_t size); /* what the resolver answered; 0 if nothing */

/* --- children (environment.c, covered.c) ------------------------------------------------------------------------------ */

enum { VARIABLES = 4, VARIABLE_MAX = PATH_MAX + 32, ENTRIES_MAX = 32768 };
void environment_remember(void);
bool environment_is_intact(char *const envp[]); /* has all that the shim needs */
/* The environment to use: envp itself when nothing is missing, or one made in so much room. NULL: too many entries (E2BIG). */
size_t environment_room(char *const envp[]);
char *const *environment_for(char *const envp[], void *room);
bool environment_allows_uncovered(void); /* --allow-uncovered */
bool environment_reaches_shim(void);     /* the library can be opened from here */
const char *shim_agent_path(void);       /* the channel, as the environment named it at start */

void covered_remember(void);
/* Whether the shim will be loaded into the program at `path` (as execveat() finds it). Returns 0 (yes, or there is
 * nothing to execute) or an errno; with `why`, words that follow the path, where it is we who refuse. */
int covered_check(int directory, const char *path, int flags, const char **why);

const char *shim_getenv(const char *name); /* without libc's lock */

void shim_start(void); /* resolves the real symbols and reads the environment; idempotent */

#endif
