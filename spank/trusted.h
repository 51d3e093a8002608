/* Images that the site trusts, mounted by the kernel. See trusted.c. */
#ifndef PIOLET_TRUSTED_H
#define PIOLET_TRUSTED_H

#include <sys/types.h>

#define TRUSTED_VARIABLE "SLURM_PIOLET_IMAGE" /* the path of the plan's image; SLURM_: passes --export=NONE */

/* On the submitting host, as the user: tell the nodes which image the plan names, if it is one below `images`. */
void trusted_announce(const char *images, const char *plan);

/* On a node, as root, in a process that will be the user's: mount the image at `path` in a mount namespace of this
 * process, its files the user's own. Returns 0, or -1 with nothing changed for the host: then squashfuse serves it. */
int trusted_mount(const char *images, const char *path, uid_t uid, gid_t gid);

#endif
