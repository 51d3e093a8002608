/* CRC-32 as zlib computes it. */
#ifndef PIOLET_CRC32_H
#define PIOLET_CRC32_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32(const char *content, size_t size);

#endif
