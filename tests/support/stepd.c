/* slurmstepd in small: runs the hooks of a Slurm plugin in slurmstepd's order and processes, so that its system calls can be
 * made to fail without a cluster.
 *
 *     stepd PLUGIN PLAN IMAGES TASKS PROGRAM [ARGUMENT...] */
#include <dlfcn.h>
#include <errno.h>
#include <slurm/spank.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_OWN = 9 };

extern char **environ;
static struct spank_option *option;
static int task = -1, word_count;
static char **words;

spank_context_t spank_context(void) { return S_CTX_REMOTE; }

spank_err_t spank_option_register(spank_t spank, struct spank_option *registered) {
    (void)spank;
    option = registered;
    return ESPANK_SUCCESS;
}

spank_err_t spank_get_item(spank_t spank, spank_item_t item, ...) {
    va_list to;
    (void)spank;
    va_start(to, item);
    switch (item) {
    case S_TASK_ID: *va_arg(to, int *) = task; break;
    case S_JOB_UID: *va_arg(to, uid_t *) = getuid(); break;
    case S_JOB_GID: *va_arg(to, gid_t *) = getgid(); break;
    case S_JOB_ENV: *va_arg(to, char ***) = environ; break;
    default: *va_arg(to, int *) = word_count; *va_arg(to, char ***) = words;
    }
    va_end(to);
    return ESPANK_SUCCESS;
}

spank_err_t spank_getenv(spank_t spank, const char *name, char *value, int size) {
    const char *found = getenv(name);
    (void)spank;
    return found && snprintf(value, (size_t)size, "%s", found) < size ? ESPANK_SUCCESS : ESPANK_ENV_NOEXIST;
}

spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int replace) {
    (void)spank;
    return setenv(name, value, replace) ? ESPANK_ERROR : ESPANK_SUCCESS;
}

spank_err_t spank_unsetenv(spank_t spank, const char *name) {
    (void)spank;
    return unsetenv(name) ? ESPANK_ERROR : ESPANK_SUCCESS;
}

void slurm_error(const char *format, ...) { (void)format; }

static int call(void *plugin, const char *name, int count, char **arguments) {
    int (*hook)(spank_t, int, char **) = (int (*)(spank_t, int, char **))dlsym(plugin, name);
    return hook ? hook(NULL, count, arguments) : 0;
}

static void run_task(void *plugin) {
    call(plugin, "slurm_spank_task_init_privileged", 0, NULL);
    if (call(plugin, "slurm_spank_task_init", 0, NULL)) _exit(EXIT_OWN);
    execvp(words[0], words);
    _exit(EXIT_OWN);
}

int main(int count, char **arguments) {
    char images[4096], *given[] = {images, "timeout_s=5"};
    int worst = 0, status, tasks = count > 5 ? atoi(arguments[4]) : 0;
    void *plugin = tasks ? dlopen(arguments[1], RTLD_NOW) : NULL;
    if (!plugin) return EXIT_OWN;
    snprintf(images, sizeof images, "images=%s", arguments[3]);
    words = arguments + 5;
    word_count = count - 5;
    if (call(plugin, "slurm_spank_init", 2, given) || option->cb(option->val, arguments[2], 1)) return EXIT_OWN;
    call(plugin, "slurm_spank_init_post_opt", 0, NULL);
    for (int started = 0; started < tasks; started++) {
        task = started;
        pid_t child = fork();
        if (!child) run_task(plugin);
        if (child < 0) return EXIT_OWN;
    }
    for (int i = 0; i < tasks; i++) call(plugin, "slurm_spank_task_post_fork", 0, NULL);
    while (wait(&status) > 0) {
        int ended = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
        if (ended > worst) worst = ended;
        call(plugin, "slurm_spank_task_exit", 0, NULL);
    }
    return errno == ECHILD ? worst : EXIT_OWN;
}
