#include "ring.h"

bool ring_push(struct ring *ring, unsigned char byte)
{
    if (ring->count > RING_SIZE)
        return false;
    ring->bytes[(ring->first + ring->count) % RING_SIZE] = byte;
    ring->count++;
    return true;
}

bool ring_pop(struct ring *ring, unsigned char *byte)
{
    if (ring->count == 0)
        return false;
    *byte = ring->bytes[ring->first];
    ring->first = (ring->first + 1) % RING_SIZE;
    ring->count--;
    return true;
}
