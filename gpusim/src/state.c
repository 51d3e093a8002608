/* What each event of a timeline changes. */
#include "gpusim.h"

#include <string.h>

enum { NOTICE_SINGLE_BIT = 0x1, NOTICE_DOUBLE_BIT = 0x2, NOTICE_XID = 0x8, XID_FELL_OFF_THE_BUS = 79 };

void state_boot(const struct inventory *inventory, struct state *out) {
    const struct model *model = &inventory->model;
    memset(out, 0, sizeof *out);
    out->ns = inventory->boot_ns;
    out->faults.slow = 1;
    out->power_w = model->power_idle_w;
    out->temperature_c = model->temperature_idle_c;
    out->sm_mhz = model->sm_idle_mhz;
}

static void notify(struct state *state, uint64_t type, uint64_t data) {
    state->notice[state->notices++ % MAX_NOTICES] = (struct notice){state->ns, type, data};
}

/* The slot of this process, else a free one, else the one that ends first. */
static struct process *slot_of(struct state *state, const struct hint *hint) {
    struct process *best = &state->process[0];
    for (int i = 0; i < MAX_PROCESSES; i++) {
        struct process *slot = &state->process[i];
        if (slot->until_ns && slot->pid == hint->pid && slot->pid_namespace == hint->pid_namespace)
            return slot;
        if (slot->until_ns < best->until_ns)
            best = slot;
    }
    return best;
}

static uint64_t bytes_of(const struct model *model, const struct hint *hint) {
    double share = model->profile[hint->phase][SHARE_MEMORY];
    uint64_t bytes = hint->has_memory ? hint->memory_bytes : (uint64_t)(share * (double)model->memory_bytes);
    return bytes < model->memory_bytes ? bytes : model->memory_bytes;
}

static void apply_hint(const struct model *model, struct state *state, const struct hint *hint) {
    state->hint = *hint;
    state->hint.until_ns += state->ns;
    *slot_of(state, hint) =
        (struct process){hint->pid, state->hint.until_ns, hint->pid_namespace, bytes_of(model, hint)};
}

static void apply_count(struct state *state, enum word word, uint64_t number) {
    struct faults *faults = &state->faults;
    if (word == WORD_ECC_CORRECTED) {
        faults->corrected += number;
        notify(state, NOTICE_SINGLE_BIT, number);
    } else if (word == WORD_ECC_UNCORRECTED) {
        faults->uncorrected += number;
        notify(state, NOTICE_DOUBLE_BIT, number);
    } else if (word == WORD_XID) {
        faults->lost |= number == XID_FELL_OFF_THE_BUS;
        notify(state, NOTICE_XID, number);
    } else if (word == WORD_NVLINK_ERRORS) {
        faults->nvlink_errors += number;
    } else if (word == WORD_PCIE_WIDTH) {
        faults->pcie_width = (unsigned)number;
    } else if (word == WORD_LEFTOVER_MEMORY) {
        faults->leftover_bytes = number;
    } else if (word == WORD_NVLINK_DOWN) {
        faults->links_down |= UINT32_C(1) << number;
    }
}

void state_apply(const struct model *model, struct state *state, const struct event *event) {
    struct faults *faults = &state->faults;
    switch (event->word) {
    case WORD_ACTIVITY: apply_hint(model, state, &event->hint); break;
    case WORD_SCRIPT:
        state->script = event->script;
        script_start(&state->script, state->ns);
        break;
    case WORD_THROTTLE: faults->throttle = event->choice; break;
    case WORD_REMAP:
        faults->remap_pending |= event->choice == 0;
        faults->remap_failed |= event->choice == 1;
        break;
    case WORD_SLOW: faults->slow = event->number; break;
    case WORD_TEMP:
        faults->has_temperature = true;
        faults->temperature_c = event->number;
        break;
    case WORD_HANG: faults->hang = true; break;
    case WORD_CLEAR: *faults = (struct faults){.slow = 1}; break;
    default: apply_count(state, event->word, (uint64_t)event->number); break;
    }
}

uint64_t allocated_bytes(const struct model *model, const struct state *state) {
    struct drive drive;
    drive_of(model, state, &drive);
    uint64_t sum = state->faults.leftover_bytes, most = model->memory_bytes - model->reserved_bytes;
    if (drive.scripted)
        sum += bytes_of(model, &state->script.now);
    for (int i = 0; i < MAX_PROCESSES; i++)
        if (state->process[i].until_ns > state->ns)
            sum += state->process[i].bytes;
    return sum < most ? sum : most;
}
