/* piolet-enter: run a program in the container of a plan, without any privilege.
 *
 *     piolet-enter PLAN -- PROGRAM [ARGUMENT...]
 *
 * The program takes this process's place, so its process id, signals and exit status are its own. The Slurm plugin
 * starts this program too, as the step's user, to build the container of a step:
 *
 *     piolet-enter --build OWNER ANSWER_FD RELEASE_FD ENDED_FD PLAN [MOUNTED]
 *
 * in a container that another runtime has made, to do what the plan says about programs:
 *
 *     piolet-enter --within PLAN -- PROGRAM [ARGUMENT...]
 *
 * and in place of a task's program that something has to come before: as /proc/self/fd/N of a file that is open in the
 * container, with the variable PIOLET_TASK naming another, which holds the program's name and the records of the
 * answer. So it is linked statically: it runs in any image, and no variable of the user's changes it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container.h"

enum { EXIT_USAGE = 2, EXIT_FAULT = 3, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127, TIMEOUT_S = 60 };

static pid_t program_pid;

#define SYSTEM_PATH "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

static void run_builder(enum image_owner owner, int answer, int release, void *plan) {
    const char *path = getenv("PATH");
    int ended = (int)syscall(SYS_pidfd_open, program_pid, 0);
    builder_main(&(struct builder){plan, owner, answer, release, ended, path ? path : SYSTEM_PATH, NULL});
}

static const char *get(void *data, const char *name) { return (void)data, getenv(name); }
static int set(void *data, const char *name, const char *value) { return (void)data, setenv(name, value, 1); }
static void unset(void *data, const char *name) { (void)data, unsetenv(name); }

/* Become the program; what is returned is the exit status when that failed. */
static int launch(const char *records, size_t size, char **program) {
    struct fault fault;
    launch_program(records, size, program, &fault);
    int error = errno;
    if (*fault.text) return fault_print(&fault), EXIT_FAULT;
    fprintf(stderr, "piolet: %s: %s in the container\n  next:   check PATH and that the image has the program\n",
            program[0], strerror(error));
    return error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

static int enter(char *plan, char **program) {
    static struct container container;
    const struct variables own = {get, set, unset, NULL};
    program_pid = getpid();
    struct fault fault;
    int release[2];
    if (pipe2(release, O_CLOEXEC))
        return fault_set(&fault, "builder", "raise the limit of open files", "pipe: %m"), fault_print(&fault), EXIT_FAULT;
    if (container_open(&container, release, run_builder, plan, TIMEOUT_S, &fault))
        return fault_print(&fault), EXIT_FAULT;
    const char *verified = getenv(VERIFIED_VARIABLE);
    if (verified) container_report(&container, verified);
    if (container_join(&container, &fault) || container_variables(&container, &own, &fault))
        return fault_print(&fault), EXIT_FAULT;
    close(release[1]);
    return launch(container.answer, container.answer_size, program);
}

static void pass_on(int number) {
    if (program_pid > 0) kill(program_pid, number);
}

/* Run the program as a child, since something is to be stopped after it and the container ends with this process. */
static int attend(const struct plan *plan, const struct container *container, char **program) {
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    int status;
    program_pid = fork();
    if (program_pid < 0) return perror("piolet: fork"), EXIT_FAULT;
    if (!program_pid) _exit(launch(container->answer, container->answer_size, program));
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], pass_on);
    while (waitpid(program_pid, &status, 0) < 0 && errno == EINTR) {
    }
    stops_run(plan);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* In a container of another runtime. */
static int within(const char *path, char **program) {
    static struct container container;
    const struct variables own = {get, set, unset, NULL};
    struct fault fault;
    struct plan plan;
    if (builder_within(path, &plan, &container, &fault) || container_variables(&container, &own, &fault))
        return fault_print(&fault), EXIT_FAULT;
    const char *verified = getenv(VERIFIED_VARIABLE);
    if (verified) container_report(&container, verified);
    if (plan_next(&plan, ITEM_STOP, NULL)) return attend(&plan, &container, program);
    return launch(container.answer, container.answer_size, program);
}

/* Open where the plugin left off: in the container, in the place of the program. */
static int task(int self, int records_fd, char **program) {
    static char records[ANSWER_MOST_BYTES];
    size_t size = 0;
    for (ssize_t part; (part = read(records_fd, records + size, sizeof records - size)) > 0;) size += (size_t)part;
    close(self);
    close(records_fd);
    unsetenv(TASK_VARIABLE);
    if (!size || records[size - 1]) return EXIT_FAULT;
    program[0] = records;
    return launch(records + strlen(records) + 1, size - strlen(records) - 1, program);
}

int main(int count, char **words) {
    const char *records = getenv(TASK_VARIABLE);
    int self;
    if (records && sscanf(words[0], "/proc/self/fd/%d", &self) == 1) return task(self, atoi(records), words);
    if (count >= 7 && !strcmp(words[1], "--build"))
        builder_main(&(struct builder){words[6], atoi(words[2]) ? OWNER_USER : OWNER_ROOT, atoi(words[3]),
                                       atoi(words[4]), atoi(words[5]), SYSTEM_PATH, words[7]});
    if (count >= 4 && words[1][0] != '-' && !strcmp(words[2], "--")) return enter(words[1], words + 3);
    if (count >= 5 && !strcmp(words[1], "--within") && !strcmp(words[3], "--")) return within(words[2], words + 4);
    fprintf(stderr, "usage: piolet-enter PLAN -- PROGRAM [ARGUMENT...]\n");
    return EXIT_USAGE;
}
