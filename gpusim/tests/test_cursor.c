/* The cursor: every line is read once, torn and future lines wait, and all ways of reading come to the same state. */
#include "check.h"
#include "cursor.h"

static struct inventory inventory;

static size_t feed(struct cursor *cursor, const char *text, double now_s) {
    return cursor_feed(cursor, &inventory.model, text, strlen(text), (int64_t)(now_s * SECOND));
}

static void waits_for_torn_and_future_lines(void) {
    struct cursor cursor;
    const char *text = "1000000000 activity compute\n3000000000 slow 0.5\n4000000000 hang";
    cursor_reset(&cursor, &inventory);
    CHECK(feed(&cursor, text, 2) == strlen("1000000000 activity compute\n"));
    CHECK(cursor.state.ns == SECOND && !cursor.state.faults.hang);
    cursor_reset(&cursor, &inventory);
    CHECK(feed(&cursor, text, 9) == (size_t)(strrchr(text, '\n') - text) + 1);
    CHECK(cursor.state.faults.slow < 0.6 && !cursor.state.faults.hang);
}

/* 25 000 lines, a good megabyte, a few at a time with a query after each batch: every line is looked at once. */
static void reads_each_line_once(void) {
    enum { LINES = 25000, BATCH = 10 };
    struct cursor cursor, whole;
    char *text = malloc(LINES * 64), *at = text;
    CHECK(text);
    for (int i = 0; i < LINES; i++)
        at += sprintf(at, "%lld activity %s level=0.%d\n", 100000000LL * i, i % 2 ? "compute" : "communication", 1 + i % 9);
    CHECK(at - text > 1000000);
    cursor_reset(&whole, &inventory);
    CHECK(cursor_feed(&whole, &inventory.model, text, (size_t)(at - text), INT64_MAX) == (size_t)(at - text));
    cursor_reset(&cursor, &inventory);
    size_t offset = 0;
    for (int batch = 1; batch <= LINES / BATCH; batch++) {
        int64_t now_ns = 100000000LL * (batch * BATCH - 1);
        offset += cursor_feed(&cursor, &inventory.model, text + offset, (size_t)(at - text) - offset, now_ns);
        struct state query = cursor.state;
        state_advance(&inventory.model, &query, now_ns);
    }
    CHECK(cursor.lines <= LINES + LINES / BATCH); /* and each batch looks once at the line that must wait */
    CHECK(offset == (size_t)(at - text) && memcmp(&cursor.state, &whole.state, sizeof whole.state) == 0);
    free(text);
}

/* A process that asks often and settles in between agrees to the last bit with one that starts late. */
static void settling_changes_nothing(void) {
    struct cursor often, late;
    const char *text = "0 script loop forever; compute 0.7; communication 0.3; end\n";
    cursor_reset(&often, &inventory);
    cursor_reset(&late, &inventory);
    feed(&often, text, 1);
    for (int i = 0; i < 1000; i++)
        state_settle(&inventory.model, &often.state, i * 77000000LL);
    feed(&late, text, 77);
    until(&inventory.model, &often.state, 80);
    until(&inventory.model, &late.state, 80);
    CHECK(memcmp(&often.state, &late.state, sizeof late.state) == 0);
}

int main(void) {
    load(&inventory);
    waits_for_torn_and_future_lines();
    reads_each_line_once();
    settling_changes_nothing();
    puts("test_cursor: ok");
}
