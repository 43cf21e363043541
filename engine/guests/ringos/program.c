/* The programs inside the kernel's image (programs.S): ELF files, each linked at USER_START.
 *
 * Loading one copies nothing. It only notes which region of the address space holds what; vm_fault()
 * maps the file's own pages, or copies those that may be written, when the program first touches them. */
#include "kernel.h"

struct program {
    char name[NAME_MAX];
    const uint8_t *file;
};
extern const struct program programs[], programs_end[];

struct elf_header {
    uint8_t identification[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, segments_offset, sections_offset;
    uint32_t flags;
    uint16_t header_size, segment_size, segments;
};

struct elf_segment {
    uint32_t type, flags;
    uint64_t offset, address, physical, file_bytes, memory_bytes, alignment;
};
#define SEGMENT_LOAD 1
#define SEGMENT_WRITABLE 2

static void add_segment(const uint8_t *file, const struct elf_segment *segment, struct space *space)
{
    bool writable = segment->flags & SEGMENT_WRITABLE;
    space->regions[writable ? DATA : TEXT] = (struct region){
        .start = segment->address,
        .end = ROUND_UP(segment->address + segment->memory_bytes, PAGE_SIZE),
        .access = writable ? PTE_R | PTE_W : PTE_R | PTE_X,
        .image = file + segment->offset,
        .image_bytes = segment->file_bytes,
    };
}

bool program_load(const char *name, struct space *space, uint64_t *entry)
{
    const struct program *program = programs;
    while (program < programs_end && !same_text(program->name, name))
        program++;
    if (program == programs_end)
        return false;
    const struct elf_header *header = (const void *)program->file;
    const struct elf_segment *segment = (const void *)(program->file + header->segments_offset);
    for (int i = 0; i < header->segments; i++)
        if (segment[i].type == SEGMENT_LOAD)
            add_segment(program->file, &segment[i], space);
    *entry = header->entry;
    return true;
}
