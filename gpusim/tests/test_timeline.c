/* The parsers: what is well-formed is read, everything else is no event, and no bytes at all can hurt. */
#include "check.h"

static bool parses(const char *line, struct event *out) {
    return event_parse(line, strlen(line), out);
}

static void reads_hints(void) {
    struct event event;
    CHECK(parses("12 activity compute level=0.5 ttl=2.5 mem=4096 pid=77 pidns=5 later=1", &event));
    CHECK(event.ns == 12 && event.word == WORD_ACTIVITY && event.hint.phase == PHASE_COMPUTE);
    CHECK_NEAR(event.hint.level, 0.5, 0);
    CHECK(event.hint.until_ns == 2500000000 && event.hint.memory_bytes == 4096 && event.hint.has_memory);
    CHECK(event.hint.pid == 77 && event.hint.pid_namespace == 5);
    CHECK(parses("1 activity idle", &event) && event.hint.until_ns == 5000000000 && !event.hint.has_memory);
    CHECK(parses("1 activity hang level=0.1", &event) && event.hint.level >= 1);
}

static void reads_faults(void) {
    struct event event;
    CHECK(parses("1 xid 79", &event) && event.word == WORD_XID && event.number > 78 && event.number < 80);
    CHECK(parses("1 throttle thermal", &event) && event.choice == (REASON_HW_THERMAL | REASON_HW_SLOWDOWN));
    CHECK(parses("1 remap failed", &event) && event.choice == 1);
    CHECK(parses("1 clear", &event) && event.word == WORD_CLEAR);
    CHECK(parses("1 hang", &event) && event.word == WORD_HANG);
}

static void reads_scripts(void) {
    struct event event;
    CHECK(parses("1 script startup 10; loop 20; compute 2 level=0.9; communication 0.5; end; checkpoint 5", &event));
    CHECK(event.script.count == 6 && event.script.step[1].repeats == 20 && event.script.step[4].kind == STEP_END);
    CHECK(event.script.step[2].hint.until_ns == 2000000000);
}

static void refuses(void) {
    static const char *const bad[] = {
        "", " ", "1", "x activity compute", "-1 clear", "1 unknown", "1 activity", "1 activity sleep",
        "1 activity compute level=2", "1 activity compute level=", "1 activity compute ttl=-1", "1 activity compute pid=x",
        "1 activity compute level", "99999999999999999999 clear", "1 xid", "1 xid 0", "1 xid 79x", "1 throttle", "1 throttle hot",
        "1 remap", "1 nvlink-down 18", "1 slow 0", "1 slow 1.5", "1 slow nan", "1 temp 1000", "1 clear all", "1 script",
        "1 script loop 2; end", "1 script loop 2; compute 1", "1 script end", "1 script loop 0; compute 1; end",
        "1 script compute", "1 script compute 0", "1 script compute inf",
        "1 script loop 2; loop 2; loop 2; loop 2; loop 2; compute 1; end; end; end; end; end"};
    struct event event;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (parses(bad[i], &event)) {
            fprintf(stderr, "accepted: \"%s\"\n", bad[i]);
            exit(1);
        }
}

static void reads_the_inventory(void) {
    struct inventory inventory;
    load(&inventory);
    CHECK(inventory.count == 2 && strcmp(inventory.device[1].uuid, "GPU-b") == 0);
    CHECK(inventory.device[0].minor == 3 && inventory.device[0].pci_domain == 9 && inventory.device[0].pci_bus == 0x1b);
    CHECK(inventory.model.memory_bytes == UINT64_C(1000) << 20 && inventory.model.capability_major == 9);
    CHECK_NEAR(inventory.model.profile[PHASE_COMPUTE][SHARE_TENSOR], 0.279, 0);
    CHECK(!inventory_parse("", &inventory) && !inventory_parse("name x\n", &inventory));
    CHECK(!inventory_parse("gpu 0 uuid=torn", &inventory));
}

/* Every line that a mutation of good ones gives is read or refused, and what is read leaves a sound state. */
static void survives_garbage(void) {
    static const char *const seeds[] = {
        "1000000000 activity compute level=0.5 ttl=2 mem=99 pid=3", "2000000000 script loop forever; compute 0.5; end",
        "3000000000 xid 48", "4000000000 slow 0.7", "5000000000 leftover-memory 21474836480", "6000000000 nvlink-down 3",
        "7000000000 throttle power", "8000000000 temp 95", "9000000000 clear", "9500000000 ecc-uncorrected 3"};
    struct inventory inventory;
    struct state state;
    struct event event;
    unsigned accepted = 0;
    load(&inventory);
    state_boot(&inventory, &state);
    srand(1);
    for (int round = 0; round < 40000; round++) {
        char line[128];
        snprintf(line, sizeof line, "%s", seeds[rand() % 10]);
        size_t length = strlen(line);
        for (int change = rand() % 3; change > 0; change--)
            line[(size_t)rand() % length] = (char)(rand() % 4 ? "0123456789. =;"[rand() % 14] : rand() % 256);
        if (!event_parse(line, length, &event) || event.ns > 20LL * SECOND)
            continue;
        accepted++;
        double energy_j = state.energy_j;
        state_advance(&inventory.model, &state, event.ns);
        state_apply(&inventory.model, &state, &event);
        CHECK(state.energy_j >= energy_j && state.power_w >= 69.9 && state.power_w <= 700.1);
        CHECK(allocated_bytes(&inventory.model, &state) <= inventory.model.memory_bytes);
    }
    CHECK(accepted > 10000);
}

int main(void) {
    reads_hints();
    reads_faults();
    reads_scripts();
    refuses();
    reads_the_inventory();
    survives_garbage();
    puts("test_timeline: ok");
}
