/* The Slurm plugin: srun --environment=NAME runs every task of the step in one container per node.
 *
 *     required /path/spank_piolet.so [piolet=/path/piolet] [enter=/path/piolet-enter] [timeout_s=60] [images=/path]
 *
 * On the submitting host (srun) it has `piolet env compile` make a plan, once, and passes the path on; it takes the
 * last one if nothing has changed since. On the nodes
 * it works in the tasks alone, where Slurm has already made them the user's and put them in the step's cgroups: the
 * first task of a node starts the builder (another program: piolet-enter), and all tasks join what it has built.
 * slurmstepd itself reads nothing and does nothing; only where plugstack.conf names images of the site that the kernel
 * may mount, the first task looks for the plan's among them while it still is root (trusted.c). A task whose container is not there never runs: it reports
 * and exits, whatever plugstack.conf says about failing plugins. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <slurm/slurm.h>
#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container.h"
#include "recall.h"
#include "trusted.h"

#define EXPORT __attribute__((visibility("default")))
#define PLAN_VARIABLE "SLURM_PIOLET_PLAN" /* SLURM_: passes --export=NONE */

enum { EXIT_FAULT = 3 };

EXPORT extern const char plugin_name[], plugin_type[];
EXPORT extern const unsigned int plugin_version, spank_plugin_version;
SPANK_PLUGIN(piolet, 1)

static struct {
    char piolet[PATH_MAX], enter[PATH_MAX], images[PATH_MAX];
    int timeout_s;
    char requested[PATH_MAX]; /* what --environment said */
    bool is_requested;
} state = {.piolet = "piolet", .timeout_s = 60};

/* ---- the submitting host ---- */

static bool is_plan(const char *name) {
    const char *suffix = strrchr(name, '.');
    return strchr(name, '/') && suffix && !strcmp(suffix, ".plan");
}

/* Start `piolet env compile NAME`; returns the end of a pipe that its answer comes from, or -1. */
static int start_compile(const char *name, pid_t *compiler) {
    int answer[2];
    if (pipe2(answer, O_CLOEXEC)) return -1;
    *compiler = fork();
    if (!*compiler) {
        int null = open("/dev/null", O_RDONLY);
        if (null < 0 || dup2(null, 0) < 0 || dup2(answer[1], 1) < 0) _exit(EXIT_FAULT);
        execlp(state.piolet, state.piolet, "env", "compile", "--", name, (char *)NULL);
        dprintf(2, "piolet: %s: %m\n  next:   put piolet on PATH, or have plugstack.conf say where it is\n",
                state.piolet);
        _exit(EXIT_FAULT);
    }
    close(answer[1]);
    return answer[0];
}

/* Have the environment compiled; `plan` gets the path. The compiler has told the user what is wrong, if anything. */
static int compile_plan(const char *name, char plan[PATH_MAX]) {
    pid_t compiler;
    int answer = start_compile(name, &compiler), status;
    if (answer < 0 || compiler < 0) return -1;
    size_t size = 0;
    for (ssize_t part; size < PATH_MAX - 1; size += (size_t)part) {
        part = read(answer, plan + size, PATH_MAX - 1 - size);
        if (part <= 0) break;
    }
    close(answer);
    while (waitpid(compiler, &status, 0) < 0 && errno == EINTR) {
    }
    plan[size] = 0;
    plan[strcspn(plan, "\n")] = 0;
    return status || plan[0] != '/' ? -1 : 0;
}

/* srun has read --environment. A refusal here ends srun before there is a job or a step. */
static int on_option_local(const char *name) {
    char plan[PATH_MAX];
    if (state.is_requested && strcmp(state.requested, name)) {
        slurm_error("piolet: one srun has one environment; start \"%s\" with an srun of its own", name);
        return -1;
    }
    if (!access("/" CONTAINER_MARK, F_OK)) {
        slurm_error("piolet: this is in a container already, and a step with an environment starts from outside");
        slurm_error("piolet: next: call srun --environment in the batch script; or leave it out, to start on the host");
        return -1;
    }
    if (is_plan(name) ? !realpath(name, plan) : recall(name, plan) && compile_plan(name, plan)) {
        slurm_error("piolet: environment \"%s\" cannot be used; nothing was started", name);
        return -1;
    }
    trusted_announce(state.images, plan);
    return setenv(PLAN_VARIABLE, plan, 1);
}

static int on_option(int value, const char *name, int remote) {
    (void)value;
    if (!name || !*name || strlen(name) >= sizeof state.requested) name = "";
    if (!remote && (!*name || on_option_local(name))) {
        if (!*name) slurm_error("piolet: --environment needs the name of an environment");
        return -1;
    }
    snprintf(state.requested, sizeof state.requested, "%s", name);
    state.is_requested = true;
    return 0;
}

/* sbatch and salloc: what starts then is a shell on the host, whose steps would start others in turn. */
static int refuse_option(int value, const char *name, int remote) {
    (void)value;
    (void)remote;
    slurm_error("piolet: --environment is srun's: a batch script or a shell runs on the host, and starts steps in environments");
    slurm_error("piolet: next: remove it here, and write `srun --environment=%s PROGRAM` in the script", name ? name : "NAME");
    return -1;
}

/* ---- all contexts ---- */

static void read_argument(const char *argument) {
    if (!strncmp(argument, "piolet=", 7)) snprintf(state.piolet, sizeof state.piolet, "%s", argument + 7);
    else if (!strncmp(argument, "enter=", 6)) snprintf(state.enter, sizeof state.enter, "%s", argument + 6);
    else if (!strncmp(argument, "images=", 7)) snprintf(state.images, sizeof state.images, "%s", argument + 7);
    else if (!strncmp(argument, "timeout_s=", 10) && atoi(argument + 10) > 0) state.timeout_s = atoi(argument + 10);
    else slurm_error("piolet: plugstack.conf: unknown argument \"%s\"", argument);
}

/* piolet-enter stands beside the plugin unless plugstack.conf says otherwise. */
static void find_enter(void) {
    Dl_info self;
    if (*state.enter || !dladdr((void *)&find_enter, &self) || !self.dli_fname) return;
    const char *slash = strrchr(self.dli_fname, '/');
    int directory = slash ? (int)(slash - self.dli_fname) : 0;
    snprintf(state.enter, sizeof state.enter, "%.*s/piolet-enter", directory, self.dli_fname);
}

EXPORT int slurm_spank_init(spank_t spank, int count, char **arguments) {
    static struct spank_option option = {
        "environment", "NAME", "run the program in the container environment NAME (an EDF: name, path or .plan)", 1, 0,
        on_option};
    static struct spank_option refused = {
        "environment", "NAME", "refused here: give it to srun", 1, 0, refuse_option};
    spank_context_t context = spank_context();
    if (context == S_CTX_ALLOCATOR) return spank_option_register(spank, &refused) == ESPANK_SUCCESS ? 0 : -1;
    if (context != S_CTX_LOCAL && context != S_CTX_REMOTE) return 0;
    for (int i = 0; i < count; i++) read_argument(arguments[i]);
    find_enter();
    return spank_option_register(spank, &option) == ESPANK_SUCCESS ? 0 : -1;
}

/* ---- the nodes ---- */

/* What the tasks of a node share until they are the user's programs: memory and two pipes of slurmstepd's. */
struct shared {
    bool is_built;
    struct fault fault;
    struct container container;
};

static struct {
    struct shared *shared;
    char plan[PATH_MAX];
    char mounted[PATH_MAX]; /* the image that the kernel has mounted for the first task */
    int built[2];   /* at its end: the first task has tried to build */
    int release[2]; /* at its end: all tasks have joined, and the builder may go */
    int ended[2];   /* at its end: all tasks have ended, and the builder stops what it started */
    int stopped[2]; /* at its end: it has */
    unsigned tasks; /* that have not ended */
    spank_t spank;
} step = {.built = {-1, -1}, .release = {-1, -1}, .ended = {-1, -1}, .stopped = {-1, -1}};

/* The path of the plan: what the option says, if that is a plan; else what srun had compiled. */
static int find_plan(spank_t spank, char plan[PATH_MAX], struct fault *fault) {
    if (state.requested[0] == '/' && is_plan(state.requested)) {
        snprintf(plan, PATH_MAX, "%s", state.requested);
        return 0;
    }
    if (spank_getenv(spank, PLAN_VARIABLE, plan, PATH_MAX) == ESPANK_SUCCESS && plan[0] == '/') return 0;
    return fault_set(fault, "plan", "load the plugin on the submitting host too, and start with its srun",
                     "srun compiled no plan for environment \"%s\"", state.requested);
}

/* Before there are tasks: make what they share. Errors wait for the tasks, which alone can write to the step's
 * standard error; and a plugin that fails here would fail the node as well. */
EXPORT int slurm_spank_init_post_opt(spank_t spank, int count, char **arguments) {
    (void)spank;
    (void)count;
    (void)arguments;
    if (spank_context() != S_CTX_REMOTE || !state.is_requested) return 0;
    void *memory = mmap(NULL, sizeof *step.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || pipe2(step.built, O_CLOEXEC) || pipe2(step.release, O_CLOEXEC) ||
        pipe2(step.ended, O_CLOEXEC) || pipe2(step.stopped, O_CLOEXEC))
        return 0;
    step.shared = memory;
    return 0;
}

static void close_one(int *end) {
    if (*end >= 0) close(*end);
    *end = -1;
}

static void close_all(int ends[2]) {
    close_one(&ends[0]);
    close_one(&ends[1]);
}

/* All tasks have been forked: what slurmstepd itself holds would keep them waiting. */
EXPORT int slurm_spank_task_post_fork(spank_t spank, int count, char **arguments) {
    (void)spank;
    (void)count;
    (void)arguments;
    close_all(step.built);
    close_all(step.release);
    close_one(&step.ended[0]);
    close_one(&step.stopped[1]);
    step.tasks++;
    return 0;
}

/* The last task has ended: the builder, which is the user's, has a while to stop what it started. */
EXPORT int slurm_spank_task_exit(spank_t spank, int count, char **arguments) {
    struct pollfd stopped = {.fd = step.stopped[0], .events = POLLIN};
    (void)spank;
    (void)count;
    (void)arguments;
    if (!state.is_requested || !step.tasks || --step.tasks) return 0;
    close_one(&step.ended[1]);
    if (!step.shared || !step.shared->is_built) return 0;
    while (poll(&stopped, 1, state.timeout_s * 1000) < 0 && errno == EINTR) {
    }
    close_one(&step.stopped[0]);
    return 0;
}

/* Leave what slurmstepd is: its signals, its protection from the memory killer, its files. */
static int shed(const int kept[], size_t count) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
    int adjust = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (adjust >= 0) (void)!write(adjust, "0", 1);
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0) return -1;
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC)) return -1;
    for (size_t i = 0; i < count; i++) {
        if (fcntl(kept[i], F_SETFD, 0)) return -1;
    }
    return chdir("/");
}

/* Already the user, in the first task's cgroups: become piolet-enter, so that nothing of slurmstepd's memory is left
 * where the user's plan is read. It has the job's variables, for what it starts in the container, and the end of
 * `stopped` for as long as it lives. */
static void run_builder(enum image_owner owner, int answer, int release, void *plan) {
    char kind[16], fds[3][16], fault[PATH_MAX + 256], **environment;
    char *mounted = *step.mounted ? step.mounted : NULL;
    char *words[] = {"piolet-enter", "--build", kind, fds[0], fds[1], fds[2], plan, mounted, NULL};
    const int kept[] = {answer, release, step.ended[0], step.stopped[1]};
    snprintf(kind, sizeof kind, "%d", owner == OWNER_USER);
    for (size_t i = 0; i < 3; i++) snprintf(fds[i], sizeof fds[i], "%d", kept[i]);
    if (spank_get_item(step.spank, S_JOB_ENV, &environment) == ESPANK_SUCCESS && !shed(kept, 4))
        execve(state.enter, words, environment);
    int size = snprintf(fault, sizeof fault,
                        "%c  stage:  builder\n  reason: %s: %m\n  next:   ask the administrators to install "
                        "piolet-enter beside the plugin\n",
                        ANSWER_FAULT, state.enter);
    (void)!write(answer, fault, (size_t)size);
}

static const char *get(void *spank, const char *name) {
    static char value[4096];
    return spank_getenv(spank, name, value, sizeof value) == ESPANK_SUCCESS ? value : NULL;
}

/* In each task, while it is root. What fails here costs time: squashfuse then serves the image. */
EXPORT int slurm_spank_task_init_privileged(spank_t spank, int count, char **arguments) {
    int task = -1;
    uid_t uid;
    gid_t gid;
    (void)count;
    (void)arguments;
    const char *image = state.is_requested && *state.images ? get(spank, TRUSTED_VARIABLE) : NULL;
    if (image && spank_get_item(spank, S_TASK_ID, &task) == ESPANK_SUCCESS && !task &&
        spank_get_item(spank, S_JOB_UID, &uid) == ESPANK_SUCCESS &&
        spank_get_item(spank, S_JOB_GID, &gid) == ESPANK_SUCCESS && !trusted_mount(state.images, image, uid, gid))
        snprintf(step.mounted, sizeof step.mounted, "%s", image);
    return 0;
}

static void build(spank_t spank, struct shared *shared) {
    step.spank = spank;
    if (find_plan(spank, step.plan, &shared->fault)) return;
    shared->is_built = !container_open(&shared->container, step.release, run_builder, step.plan, state.timeout_s,
                                       &shared->fault);
    const char *verified = get(spank, VERIFIED_VARIABLE);
    if (shared->is_built && verified) container_report(&shared->container, verified);
}

/* Wait until the first task has built, or has died. */
static void wait_for_build(void) {
    struct pollfd end = {.fd = step.built[0], .events = POLLIN};
    close(step.built[1]);
    while (poll(&end, 1, (state.timeout_s + 5) * 1000) < 0 && errno == EINTR) {
    }
}

static int set(void *spank, const char *name, const char *value) {
    return spank_setenv(spank, name, value, 1) == ESPANK_SUCCESS ? 0 : -1;
}

static void unset(void *spank, const char *name) { spank_unsetenv(spank, name); }

/* What comes before the task's program: its name and the records, in memory. Returns the file or -1. */
static int write_records(const struct container *container, const char *program) {
    int file = memfd_create("piolet", 0);
    size_t size = strlen(program) + 1;
    if (file < 0 || write(file, program, size) != (ssize_t)size ||
        write(file, container->answer, container->answer_size) != (ssize_t)container->answer_size ||
        lseek(file, 0, SEEK_SET))
        return -1;
    return file;
}

/* Have piolet-enter, which is `self`, take the place of the program, in an image that does not have it. */
static int take_place(spank_t spank, const struct container *container, int self, struct fault *fault) {
    char **words, name[32];
    int count, records = -1;
    if (spank_get_item(spank, S_JOB_ARGV, &count, &words) == ESPANK_SUCCESS && count)
        records = write_records(container, words[0]);
    snprintf(name, sizeof name, "%d", records);
    if (self < 0 || records < 0 || set(spank, TASK_VARIABLE, name) ||
        asprintf(&words[0], "/proc/self/fd/%d", self) < 0)
        return fault_set(fault, "entrypoint", "ask the administrators to install piolet-enter beside the plugin",
                         "cannot take the place of the program: %m");
    return 0;
}

/* Enter the container, and take its variables. */
static int join(spank_t spank, const struct container *container, struct fault *fault) {
    const struct variables task = {get, set, unset, spank};
    int self = container_launches(container) ? open(state.enter, O_RDONLY) : -1;
    if (container_join(container, fault) || container_variables(container, &task, fault)) return -1;
    return container_launches(container) ? take_place(spank, container, self, fault) : 0;
}

__attribute__((noreturn)) static void end_task(const struct fault *fault) {
    if (fault) fault_print(fault);
    _exit(EXIT_FAULT);
}

/* In each task, as the user, right before the program: the first builds, all enter; or the task ends here. */
EXPORT int slurm_spank_task_init(spank_t spank, int count, char **arguments) {
    static const char again[] = "look for what this task's node says above; try again";
    struct shared *shared = step.shared;
    struct fault fault;
    int task = -1;
    (void)count;
    (void)arguments;
    if (!state.is_requested) return 0;
    if (!shared || spank_get_item(spank, S_TASK_ID, &task) != ESPANK_SUCCESS)
        return fault_set(&fault, "builder", again, "slurmstepd has no memory or files left"), end_task(&fault), -1;
    if (task) {
        wait_for_build();
    } else {
        build(spank, shared);
        close_all(step.built);
    }
    if (!shared->is_built) {
        bool unsaid = !*shared->fault.text;
        if (unsaid) fault_set(&fault, "builder", again, "the first task of the node ended before it had built");
        end_task(unsaid ? &fault : task ? NULL : &shared->fault);
    }
    if (join(spank, &shared->container, &fault)) end_task(&fault);
    close_all(step.release);
    return 0;
}
