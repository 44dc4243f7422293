#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stddef.h>

#define RING_SIZE 8

/* A queue of at most RING_SIZE bytes; all zero is the empty one. */
struct ring {
    unsigned char bytes[RING_SIZE];
    size_t first, count;
};

/* False when the ring is full. */
bool ring_push(struct ring *ring, unsigned char byte);

/* False when the ring is empty. */
bool ring_pop(struct ring *ring, unsigned char *byte);

#endif
