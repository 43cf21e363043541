/**
 * Why an image was refused: the sentences of engine/machine/loader.py, key -> [English, Korean], in the shape of messages.js.
 * tests/engine/machine/test_loader_messages.py holds keys and parameters against the engine.
 * @type {Record<string, readonly [en: string, ko: string]>}
 */
export const IMAGE_MESSAGES = {
  'error.image-empty': ['{image} is empty.', '{image:은} 비어 있습니다.'],
  'error.image-packed': [
    '{image} is packed with {packing}; unpack it first.',
    '{image:은} {packing:으로} 압축되어 있습니다. 먼저 압축을 푸세요.',
  ],
  'error.image-header-truncated': [
    '{image} ends inside its 64-byte RISC-V Image header, after {size} bytes.',
    '{image:이} 64바이트 RISC-V Image 헤더 중간에서 끝납니다({size}바이트).',
  ],
  'error.image-endianness': [
    '{image} is a big-endian RISC-V Image (flags at offset 24); this machine is little-endian.',
    '{image:은} 빅 엔디언 RISC-V Image입니다(오프셋 24의 flags). 이 기계는 리틀 엔디언입니다.',
  ],
  'error.image-outside-ram': [
    '{image} has a segment at {address}..{end}, outside RAM, which begins at 0x80000000. Link it at 0x80000000 (M mode) or 0x80200000 (S mode).',
    '{image}의 세그먼트 {address}..{end}는 0x80000000에서 시작하는 RAM 밖에 있습니다. 0x80000000(M 모드)이나 0x80200000(S 모드)에 링크하세요.',
  ],
  'error.image-entry-misaligned': [
    '{image} starts at {entry}, which is odd, and instructions stand at multiples of 2.',
    '{image}의 시작 주소 {entry:은} 홀수입니다. 명령어는 2의 배수 주소에 있습니다.',
  ],
  'error.image-too-large': [
    '{image} reaches to {end} and needs {need_mib} MiB of memory; the machine has {have_mib} MiB.',
    '{image:은} {end}까지 차지하여 메모리 {need_mib} MiB가 필요하지만, 기계에는 {have_mib} MiB가 있습니다.',
  ],
  'error.elf-address': [
    '{image} is an ELF file, which says itself where it goes. Only a flat binary takes an address.',
    '{image:은} 자신이 놓일 곳을 스스로 정하는 ELF 파일입니다. 주소는 플랫 바이너리에만 줄 수 있습니다.',
  ],
  'error.elf-class': [
    '{image}: it is not a 64-bit ELF file (class {found} at offset 4). Compile it for rv64.',
    '{image}: 64비트 ELF 파일이 아닙니다(오프셋 4의 클래스 {found}). rv64용으로 컴파일하세요.',
  ],
  'error.elf-endianness': [
    '{image}: it is not little-endian (data encoding {found} at offset 5), as RISC-V code is.',
    '{image}: 리틀 엔디언이 아닙니다(오프셋 5의 데이터 인코딩 {found}). RISC-V 코드는 리틀 엔디언입니다.',
  ],
  'error.elf-machine': [
    '{image}: it is made for {found}, not for RISC-V (offset 18). Use a riscv64 compiler.',
    '{image}: RISC-V가 아니라 {found}용입니다(오프셋 18). riscv64 컴파일러를 쓰세요.',
  ],
  'error.elf-extensions': [
    '{image}: it was compiled for RISC-V extensions that this machine lacks: {needs}. Compile it with -march=rv64imac_zicsr_zifencei -mabi=lp64.',
    '{image}: 이 기계에 없는 RISC-V 확장 {needs}용으로 컴파일되었습니다. -march=rv64imac_zicsr_zifencei -mabi=lp64로 컴파일하세요.',
  ],
  'error.elf-type': [
    '{image}: it is not an executable for fixed addresses but {found} (offset 16). Link it with -static -no-pie.',
    '{image}: 고정 주소용 실행 파일이 아니라 {found}입니다(오프셋 16). -static -no-pie로 링크하세요.',
  ],
  'error.elf-dynamic': [
    '{image}: it is dynamically linked, and here is no system that could load its libraries. Link it with -static -no-pie.',
    '{image}: 동적으로 링크되었지만, 여기에는 라이브러리를 불러올 시스템이 없습니다. -static -no-pie로 링크하세요.',
  ],
  'error.elf-truncated': [
    '{image}: the {part} at offset {offset} is {size} bytes long, but the file ends after {file_size} bytes. It was cut short; copy it again.',
    '{image}: 오프셋 {offset}의 {part:은} {size}바이트이지만 파일은 {file_size}바이트에서 끝납니다. 잘린 파일이니 다시 복사하세요.',
  ],
  'error.elf-entry-size': [
    '{image}: its {part}s are {found} bytes each; ELF64 has {expected}.',
    '{image}: {part} 하나가 {found}바이트입니다. ELF64에서는 {expected}바이트입니다.',
  ],
  'error.elf-nothing-to-load': [
    '{image}: it has no segment to load (no PT_LOAD program header).',
    '{image}: 메모리에 올릴 세그먼트가 없습니다(PT_LOAD 프로그램 헤더 없음).',
  ],
  'error.elf-too-many-segments': [
    '{image}: it has {count} segments to load; {limit} is the most.',
    '{image}: 올릴 세그먼트가 {count}개입니다. {limit}개까지 가능합니다.',
  ],
  'error.elf-segment-size': [
    '{image}: the segment for {address} has {file_size} bytes in the file but only {memory_size} in memory.',
    '{image}: {address}의 세그먼트는 파일에서 {file_size}바이트인데 메모리에서는 {memory_size}바이트뿐입니다.',
  ],
  'error.elf-segments-share': [
    '{image}: its segments claim {total} bytes of a file of {file_size} bytes.',
    '{image}: {file_size}바이트 파일에서 세그먼트들이 {total}바이트를 차지한다고 되어 있습니다.',
  ],
  'error.elf-overlap': [
    '{image}: its segments {first} and {second} overlap. Mend the linker script.',
    '{image}: 세그먼트 {first:과} {second:이} 겹칩니다. 링커 스크립트를 고치세요.',
  ],
  'error.elf-entry': [
    '{image}: its entry {entry} lies in none of its segments. Give the linker the entry symbol (ENTRY or -e).',
    '{image}: 시작 주소 {entry:이} 어느 세그먼트에도 없습니다. 링커에 시작 심벌을 알려 주세요(ENTRY 또는 -e).',
  ],
  'error.elf-symbols': [
    '{image}: its symbol table names section {section} for its texts, which is not a string table.',
    '{image}: 심벌 테이블이 이름을 담은 곳으로 섹션 {section:을} 가리키지만, 문자열 테이블이 아닙니다.',
  ],
  'error.elf-too-many-symbols': [
    '{image}: it has {count} symbols; {limit} is the most. Strip it.',
    '{image}: 심벌이 {count}개입니다. {limit}개까지 가능합니다. strip으로 줄이세요.',
  ],
};
