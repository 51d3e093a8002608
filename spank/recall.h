/* See recall.c. */
#ifndef PIOLET_RECALL_H
#define PIOLET_RECALL_H

#include <limits.h>
#include <stdbool.h>

/* The plan of the environment `name`, as it was compiled before from all that still is as it was. Returns 0, or -1. */
int recall(const char *name, char plan[PATH_MAX]);

#endif
