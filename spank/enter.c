/* piolet-enter: run a program in the container of a plan, without any privilege.
 *
 *     piolet-enter PLAN -- PROGRAM [ARGUMENT...]
 *
 * The program takes this process's place, so its process id, signals and exit status are its own. The Slurm plugin
 * starts this program too, as the step's user, to build the container of a step:
 *
 *     piolet-enter --build OWNER ANSWER_FD RELEASE_FD PLAN
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container.h"

enum { EXIT_USAGE = 2, EXIT_FAULT = 3, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127, TIMEOUT_S = 60 };

static void run_builder(enum image_owner owner, int answer, int release, void *plan) {
    builder_main(plan, owner, answer, release);
}

static void set_variables(const struct container *container) {
    for (const char *variable = NULL; (variable = container_variable(container, variable));) {
        char *equals = strchr(variable, '=');
        if (equals) putenv((char *)variable);
        else unsetenv(variable);
    }
}

static int enter(char *plan, char **program) {
    static struct container container;
    struct fault fault;
    int release[2];
    if (pipe2(release, O_CLOEXEC)) return perror("piolet: pipe"), EXIT_FAULT;
    if (container_open(&container, release, run_builder, plan, TIMEOUT_S, &fault) ||
        container_join(&container, &fault)) {
        fault_print(&fault);
        return EXIT_FAULT;
    }
    close(release[1]);
    set_variables(&container);
    execvp(program[0], program);
    int error = errno;
    fprintf(stderr, "piolet: %s: %m in the container\n  next:   check PATH and that the image has the program\n",
            program[0]);
    return error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

int main(int count, char **words) {
    if (count == 6 && !strcmp(words[1], "--build"))
        builder_main(words[5], atoi(words[2]) ? OWNER_USER : OWNER_ROOT, atoi(words[3]), atoi(words[4]));
    if (count >= 4 && words[1][0] != '-' && !strcmp(words[2], "--")) return enter(words[1], words + 3);
    fprintf(stderr, "usage: piolet-enter PLAN -- PROGRAM [ARGUMENT...]\n");
    return EXIT_USAGE;
}
