# A guest of one sector: it writes a number that counts up, each time to the next sector of a ring of 32 from
# sector 64 on, through the BIOS, and never stops.  What it has written last is in a register alone, so that it
# survives a migration only if the machine does.
    .code16
    .globl _start
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7000, %sp
    movb %dl, drive
    xorl %ebx, %ebx
again:
    incl %ebx
    movl %ebx, 0x8000
    movl %ebx, 0x81fc
    movl %ebx, %eax
    andl $31, %eax
    addl $64, %eax
    movl %eax, lba
try:
    movw $packet, %si
    movb drive, %dl
    movw $0x4300, %ax
    pushl %ebx
    int $0x13
    popl %ebx
    jc try
    jmp again
drive:
    .byte 0
    .align 4
packet:
    .byte 16, 0
    .word 1
    .word 0x8000, 0
lba:
    .long 0, 0
    .org 510
    .word 0xaa55
