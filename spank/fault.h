/* Why a container could not be started: the stage, the reason and the remedy, as the user reads them. */
#ifndef PIOLET_FAULT_H
#define PIOLET_FAULT_H

enum { FAULT_BYTES = 4096 };

struct fault {
    char text[FAULT_BYTES];
};

/* Describe the fault and return -1. `format` is the reason; %m in it is errno's text. */
__attribute__((format(printf, 4, 5))) int fault_set(struct fault *fault, const char *stage, const char *remedy,
                                                    const char *format, ...);

/* Write the fault to standard error, with the name of this node. */
void fault_print(const struct fault *fault);

#endif
