/* What drivers of virtio devices share (Virtual I/O Device 1.2, sections 2.7 and 4.2): finding one behind virtio-mmio,
 * and queues of QUEUE_SIZE buffers. */
#pragma once
#include "../kernel.h"

enum { VIRTIO_NET = 1, VIRTIO_BLOCK = 2, VIRTIO_BALLOON = 5 };
enum { QUEUE_NOTIFY = 0x50 / 4, INTERRUPT_ACK = 0x64 / 4, CONFIG = 0x100 / 4 }; /* registers */
enum { INTERRUPT_USED = 1, INTERRUPT_CONFIG = 2 };
#define QUEUE_SIZE 8
enum { NEXT = 1, WRITE = 2 }; /* of a descriptor */
#define NO_INTERRUPT 1        /* the driver's flag */
#define NO_NOTIFY 1           /* the device's */

struct queue {
    struct {
        uint64_t address;
        uint32_t bytes;
        uint16_t flags, next;
    } descriptors[QUEUE_SIZE];
    struct {
        uint16_t flags, index, ring[QUEUE_SIZE];
    } driver;
    struct {
        uint16_t flags, index;
        struct {
            uint32_t head, bytes;
        } ring[QUEUE_SIZE];
    } device;
};

volatile uint32_t *virtio_find(uint32_t kind, uint32_t features);
void virtio_queue(volatile uint32_t *device, uint32_t number, const struct queue *queue);
void virtio_start(volatile uint32_t *device);
uint32_t virtio_source(volatile uint32_t *device);
void virtio_offer(volatile uint32_t *device, uint32_t number, struct queue *queue, uint16_t head);
void virtio_do(volatile uint32_t *device, uint32_t number, struct queue *queue);
