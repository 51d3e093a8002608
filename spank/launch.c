/* Becoming the program of a task: start-up commands of the task's own first, then the entrypoint and the program. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container.h"

/* The next text after `previous`, or NULL. */
static const char *next_record(const char *records, size_t size, const char *previous) {
    const char *next = previous ? previous + strlen(previous) + 1 : records;
    return next < records + size ? next : NULL;
}

/* Run the command whose record is `start`: SECONDS BY, and its words in the records after it. */
static int run_start(const char *records, size_t size, const char *start, struct fault *fault) {
    char *words[PLAN_MOST_FIELDS], *by;
    size_t count = 0;
    int seconds = (int)strtol(start + 1, &by, 10);
    for (const char *word = start; (word = next_record(records, size, word)) && *word == RECORD_WORD;) {
        if (count < PLAN_MOST_FIELDS - 1) words[count++] = (char *)word + 1;
    }
    words[count] = NULL;
    return command_run("start", by + (*by == ' '), seconds, words, fault);
}

int launch_program(const char *records, size_t size, char **program, struct fault *fault) {
    size_t count = 0, most = 0;
    while (program[most]) most++;
    char **words = calloc(most + PLAN_MOST_FIELDS + 1, sizeof *words);
    *fault->text = 0;
    if (!words) return -1;
    for (const char *record = NULL; (record = next_record(records, size, record));) {
        if (*record == RECORD_START && run_start(records, size, record, fault)) return -1;
        if (*record == RECORD_ENTRYPOINT && count < PLAN_MOST_FIELDS) words[count++] = (char *)record + 1;
    }
    memcpy(words + count, program, most * sizeof *words);
    execvp(words[0], words);
    program[0] = words[0]; /* for the message */
    return -1;
}
