#include "fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

int fault_set(struct fault *fault, const char *stage, const char *remedy, const char *format, ...) {
    char reason[FAULT_BYTES / 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    snprintf(fault->text, sizeof fault->text, "  stage:  %s\n  reason: %s\n  next:   %s\n", stage, reason, remedy);
    return -1;
}

void fault_print(const struct fault *fault) {
    char node[256] = "this machine";
    gethostname(node, sizeof node - 1);
    dprintf(STDERR_FILENO, "piolet: the container could not be started on %s; the program was not run\n%s", node,
            fault->text);
}
