/* The GPU simulator's own types: what a GPU is (inventory), what happened to it (timeline) and what follows (physics).
 *
 * Every value at a time t is a pure function of the inventory and of the timeline's lines up to t, so that all
 * processes agree without sharing anything. Times are UTC nanoseconds, shares are 0..1, everything else says its unit. */
#ifndef PIOLET_GPUSIM_H
#define PIOLET_GPUSIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_GPUS = 16, MAX_LINKS = 18, MAX_PROCESSES = 16, MAX_STEPS = 64, MAX_DEPTH = 4, MAX_NOTICES = 32, MAX_REASONS = 9 };

/* Shares of a phase's profile; the names in the inventory are in inventory.c. */
enum share {
    SHARE_UTIL, SHARE_GR, SHARE_SM, SHARE_OCCUPANCY, SHARE_INTEGER, SHARE_TENSOR, SHARE_DRAM, SHARE_FP64, SHARE_FP32,
    SHARE_FP16, SHARE_NVLINK_TX, SHARE_NVLINK_RX, SHARE_PCIE_TX, SHARE_PCIE_RX, SHARE_MEMORY, SHARE_COUNT
};

enum phase {
    PHASE_IDLE, PHASE_STARTUP, PHASE_COMPUTE, PHASE_COMMUNICATION, PHASE_INPUT, PHASE_CHECKPOINT, PHASE_HANG, PHASE_COUNT
};

/* Clocks event reasons: bits of NVML's mask. */
enum reason {
    REASON_IDLE = 0x1, REASON_SW_POWER_CAP = 0x4, REASON_HW_SLOWDOWN = 0x8, REASON_SW_THERMAL = 0x20,
    REASON_HW_THERMAL = 0x40, REASON_HW_POWER_BRAKE = 0x80
};

/* Reasons that NVML also counts together, as violations of a policy. */
enum violation { VIOLATION_POWER, VIOLATION_THERMAL, VIOLATION_COUNT };

/* ---- inventory ---- */

struct model {
    char name[96], vbios[32], part_number[80];
    unsigned architecture, capability_major, capability_minor, pci_device_id, pci_subsystem_id, cores, memory_bus_bits;
    unsigned sm_idle_mhz, sm_max_mhz, memory_mhz, video_max_mhz;
    unsigned nvlinks, nvlink_version, pcie_generation, pcie_width, row_banks;
    bool nvlink_to_switch;
    uint64_t memory_bytes, reserved_bytes;
    double power_idle_w, power_limit_w, power_min_limit_w;
    double temperature_idle_c, temperature_full_c, temperature_max_c, temperature_slowdown_c, temperature_shutdown_c;
    double memory_temperature_max_c, memory_bytes_per_s, nvlink_bytes_per_s, pcie_bytes_per_s;
    double profile[PHASE_COUNT][SHARE_COUNT];
};

struct device {
    unsigned index, minor, pci_domain, pci_bus, pci_device;
    char uuid[48], serial[32];
};

struct inventory {
    char driver[80];
    int cuda;
    int64_t boot_ns;
    struct model model;
    unsigned count;
    struct device device[MAX_GPUS];
};

/* Parse the text of an inventory file; false if it lists no GPU or is unreadable. */
bool inventory_parse(const char *text, struct inventory *out);
/* Find `word` among `count` names; -1 if it is none of them. */
int word_index(const char *word, size_t length, const char *const *names, int count);
extern const char *const phase_names[PHASE_COUNT];

/* ---- timeline ---- */

struct hint {
    enum phase phase;
    double level;
    int64_t until_ns; /* in an event: the time to live; in a state: the end */
    bool has_memory;
    uint64_t memory_bytes;
    int64_t pid;
    uint64_t pid_namespace;
};

enum step_kind { STEP_PHASE, STEP_LOOP, STEP_END };

struct step {
    enum step_kind kind;
    struct hint hint;  /* of a phase: what it does; until_ns is its length */
    int64_t repeats;   /* of a loop: 0 for ever */
};

struct script {
    int count, next, depth;
    struct step step[MAX_STEPS];
    int start[MAX_DEPTH];
    int64_t left[MAX_DEPTH];
    bool running;
    struct hint now;   /* the phase in force; until_ns is its end */
};

enum word {
    WORD_ACTIVITY, WORD_SCRIPT, WORD_XID, WORD_THROTTLE, WORD_ECC_CORRECTED, WORD_ECC_UNCORRECTED, WORD_REMAP,
    WORD_NVLINK_DOWN, WORD_NVLINK_ERRORS, WORD_PCIE_WIDTH, WORD_SLOW, WORD_LEFTOVER_MEMORY, WORD_TEMP, WORD_HANG, WORD_CLEAR,
    WORD_COUNT
};

struct event {
    int64_t ns;
    enum word word;
    double number;     /* the argument of most faults */
    unsigned choice;   /* throttle: reason bits; remap: 0 pending, 1 failed */
    struct hint hint;
    struct script script;
};

/* Parse one line without its newline; false for anything that is not wholly well-formed (it is then ignored). */
bool event_parse(const char *line, size_t length, struct event *out);

/* ---- physics ---- */

struct process {
    int64_t pid, until_ns;
    uint64_t pid_namespace, bytes;
};

struct faults {
    bool hang, lost, remap_pending, remap_failed, has_temperature;
    unsigned throttle, pcie_width; /* lanes that are left; 0: all */
    double slow, temperature_c;
    uint64_t corrected, uncorrected, nvlink_errors, leftover_bytes;
    uint32_t links_down;
};

/* What an event set delivers. */
struct notice {
    int64_t ns;
    uint64_t type, data;
};

struct state {
    int64_t ns;
    double busy_s[SHARE_COUNT];          /* integral of each share since boot */
    double reason_s[MAX_REASONS];        /* time with each clocks event reason, by bit number */
    double violation_s[VIOLATION_COUNT];
    double link_tx_bytes[MAX_LINKS], link_rx_bytes[MAX_LINKS];
    double energy_j, power_w, temperature_c, sm_mhz, utilisation, memory_utilisation;
    struct hint hint;
    struct script script;
    struct process process[MAX_PROCESSES];
    struct faults faults;
    struct notice notice[MAX_NOTICES];   /* the last ones, at index notices % MAX_NOTICES */
    uint64_t notices;
};

/* What drives a GPU: constant until `until_ns`. */
struct drive {
    double share[SHARE_COUNT];
    double power_w, sm_mhz;
    unsigned reasons;
    int64_t until_ns;
    bool scripted;
};

void state_boot(const struct inventory *inventory, struct state *out);
void state_apply(const struct model *model, struct state *state, const struct event *event);
/* Advance to `ns`, through every expiry and script step on the way. */
void state_advance(const struct model *model, struct state *state, int64_t ns);
/* Advance only to the last expiry or script step at or before `ns`. */
void state_settle(const struct model *model, struct state *state, int64_t ns);
void drive_of(const struct model *model, const struct state *state, struct drive *out);

double temperature_reading_c(const struct model *model, const struct state *state);
double memory_temperature_c(const struct model *model, const struct state *state);
uint64_t allocated_bytes(const struct model *model, const struct state *state);
unsigned links_active(const struct model *model, const struct state *state);
bool link_is_active(const struct model *model, const struct state *state, unsigned link);

/* Start a parsed script at `ns`; then go from phase to phase. */
void script_start(struct script *script, int64_t ns);
void script_next(struct script *script);

/* ---- cursor: the files ---- */

struct view {
    const struct inventory *inventory;
    const struct model *model;
    const struct device *device;
    struct state state;
    struct drive drive;
};

/* Read the inventory of the state directory ($PIOLET_GPUSIM, else /run/piolet-node/gpu). */
bool simulator_load(void);
const struct inventory *simulator_inventory(void);
/* Fill `view` with GPU `index` as it is now. */
void simulator_look(unsigned index, struct view *view);
/* The time: $PIOLET_GPUSIM_NOW_NS if set (tests), else CLOCK_REALTIME. */
int64_t simulator_now_ns(void);

#endif
