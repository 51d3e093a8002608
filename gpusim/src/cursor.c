/* Reading the state directory: the inventory once, each timeline from where this process stopped reading it.
 *
 * A cursor keeps the state after the last line it has read; a query copies it and advances the copy, so that what one
 * process asks changes nothing. Lines ahead of the clock are left for later, a torn last line until it is whole. */
#include "gpusim.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cursor.h"

static const char *const DEFAULT_DIRECTORY = "/run/piolet-node/gpu";
/* A writer may be this late with a line and every process still agrees on its time. */
static const int64_t LATE_NS = 2000000000;
enum { INVENTORY_MAX_BYTES = 1 << 16, CHUNK_BYTES = 1 << 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct inventory inventory;
static char directory[4000];
static struct cursor cursors[MAX_GPUS];

int64_t simulator_now_ns(void) {
    const char *fake = getenv("PIOLET_GPUSIM_NOW_NS");
    if (fake && *fake)
        return strtoll(fake, NULL, 10);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool read_inventory(struct inventory *out) {
    static char text[INVENTORY_MAX_BYTES];
    char path[4096];
    snprintf(path, sizeof path, "%s/inventory", directory);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t length = pread(file, text, sizeof text - 1, 0);
    close(file);
    if (length <= 0)
        return false;
    text[length] = '\0';
    return inventory_parse(text, out);
}

bool simulator_load(void) {
    const char *chosen = getenv("PIOLET_GPUSIM");
    pthread_mutex_lock(&lock);
    snprintf(directory, sizeof directory, "%s", chosen && *chosen ? chosen : DEFAULT_DIRECTORY);
    memset(cursors, 0, sizeof cursors);
    bool good = read_inventory(&inventory);
    pthread_mutex_unlock(&lock);
    return good;
}

const struct inventory *simulator_inventory(void) {
    return &inventory;
}

void cursor_reset(struct cursor *cursor, const struct inventory *of) {
    memset(cursor, 0, sizeof *cursor);
    state_boot(of, &cursor->state);
    cursor->primed = true;
}

/* Take one line. False if it lies ahead of `now_ns`: then it and what follows it wait. */
static bool take_line(struct cursor *cursor, const struct model *model, const char *line, size_t length, int64_t now_ns) {
    static struct event event;
    cursor->lines++;
    if (!event_parse(line, length, &event))
        return true;
    if (event.ns > now_ns)
        return false;
    state_advance(model, &cursor->state, event.ns);
    state_apply(model, &cursor->state, &event);
    return true;
}

size_t cursor_feed(struct cursor *cursor, const struct model *model, const char *text, size_t length, int64_t now_ns) {
    size_t taken = 0;
    for (const char *end; (end = memchr(text + taken, '\n', length - taken)); taken = (size_t)(end - text) + 1)
        if (!take_line(cursor, model, text + taken, (size_t)(end - text) - taken, now_ns))
            break;
    return taken;
}

static void read_timeline(struct cursor *cursor, unsigned index, int64_t now_ns) {
    static char chunk[CHUNK_BYTES];
    char path[4096];
    snprintf(path, sizeof path, "%s/gpu%u.log", directory, index);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    if (lseek(file, 0, SEEK_END) < cursor->offset)
        cursor_reset(cursor, &inventory); /* a new, shorter file: another life of this node */
    for (ssize_t length; (length = pread(file, chunk, sizeof chunk, cursor->offset)) > 0;) {
        size_t taken = cursor_feed(cursor, &inventory.model, chunk, (size_t)length, now_ns);
        if (taken == 0 && length == (ssize_t)sizeof chunk && !memchr(chunk, '\n', sizeof chunk))
            taken = sizeof chunk; /* garbage without end is no event */
        if (taken == 0)
            break;
        cursor->offset += (off_t)taken;
    }
    close(file);
}

void simulator_look(unsigned index, struct view *view) {
    pthread_mutex_lock(&lock);
    struct cursor *cursor = &cursors[index];
    int64_t now_ns = simulator_now_ns();
    if (now_ns < inventory.boot_ns)
        now_ns = inventory.boot_ns;
    if (!cursor->primed || now_ns < cursor->state.ns)
        cursor_reset(cursor, &inventory);
    read_timeline(cursor, index, now_ns);
    state_settle(&inventory.model, &cursor->state, now_ns - LATE_NS);
    view->inventory = &inventory;
    view->model = &inventory.model;
    view->device = &inventory.device[index];
    view->state = cursor->state;
    pthread_mutex_unlock(&lock);
    state_advance(view->model, &view->state, now_ns);
    drive_of(view->model, &view->state, &view->drive);
}
