#include "ring.h"

#include <assert.h>
#include <stdio.h>

int main(void)
{
    struct ring ring = {0};
    unsigned char byte;

    assert(!ring_pop(&ring, &byte));
    for (unsigned char n = 0; n < RING_SIZE; n++)
        assert(ring_push(&ring, n));
    assert(!ring_push(&ring, RING_SIZE));
    for (unsigned char n = 0; n < RING_SIZE; n++)
        assert(ring_pop(&ring, &byte) && byte == n);
    assert(!ring_pop(&ring, &byte));
    puts("ring: ok");
    return 0;
}
