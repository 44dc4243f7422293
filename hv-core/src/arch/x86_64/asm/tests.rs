use super::*;

type Build = fn(&mut Program) -> &mut Program;

#[rustfmt::skip]
const ENCODINGS: [(&str, Build, &[u8]); 17] = [
        (
            "out",
            |p| p.out(0x3f8, Width::W1, 0x41),
            &[0xba, 0xf8, 3, 0, 0, 0xb8, 0x41, 0, 0, 0, 0xee],
        ),
        (
            "in",
            |p| p.input(0x10, Width::W2),
            &[0xba, 0x10, 0, 0, 0, 0x31, 0xc0, 0x66, 0xed],
        ),
        (
            "outs",
            |p| p.out_string(1, Width::W4, 2, 3),
            &[
                0xba, 1, 0, 0, 0, 0x48, 0xbe, 2, 0, 0, 0, 0, 0, 0, 0, 0x48, 0xb9, 3, 0, 0, 0, 0, 0,
                0, 0, 0xfc, 0xf3, 0x6f,
            ],
        ),
        (
            "ins",
            |p| p.in_string(1, Width::W2, 2, 3),
            &[
                0xba, 1, 0, 0, 0, 0x48, 0xbf, 2, 0, 0, 0, 0, 0, 0, 0, 0x48, 0xb9, 3, 0, 0, 0, 0, 0,
                0, 0, 0xfc, 0xf3, 0x66, 0x6d,
            ],
        ),
        (
            "store",
            |p| p.store(0x1000, Width::W8, 5),
            &[
                0x48, 0xb8, 5, 0, 0, 0, 0, 0, 0, 0, 0x48, 0xbb, 0, 0x10, 0, 0, 0, 0, 0, 0, 0x48,
                0x89, 3,
            ],
        ),
        (
            "load",
            |p| p.load(0x1000, Width::W1),
            &[0x48, 0xbb, 0, 0x10, 0, 0, 0, 0, 0, 0, 0x31, 0xc0, 0x8a, 3],
        ),
        (
            "increment",
            |p| p.increment(1),
            &[0x48, 0xbb, 1, 0, 0, 0, 0, 0, 0, 0, 0x48, 0xff, 3],
        ),
        ("spin", |p| p.spin(), &[0xe9, 0xfb, 0xff, 0xff, 0xff]),
        (
            "serve",
            |p| p.serve_interrupts(),
            &[0xfb, 0xf4, 0xe9, 0xfa, 0xff, 0xff, 0xff],
        ),
        (
            "wait",
            |p| p.wait_port(1),
            &[
                0xba, 1, 0, 0, 0, 0x31, 0xc0, 0xec, 0x84, 0xc0, 0x0f, 0x84, 0xf0, 0xff, 0xff, 0xff,
            ],
        ),
        (
            "repeat",
            |p| p.repeat(2, |p| p.halt()),
            &[
                0x49, 0xbc, 2, 0, 0, 0, 0, 0, 0, 0, 0xf4, 0x49, 0xff, 0xcc, 0x0f, 0x85, 0xf6, 0xff,
                0xff, 0xff,
            ],
        ),
        (
            "wrmsr",
            |p| p.write_msr(0x10, 0x1_0000_0002),
            &[
                0xb9, 0x10, 0, 0, 0, 0xb8, 2, 0, 0, 0, 0xba, 1, 0, 0, 0, 0x0f, 0x30,
            ],
        ),
        (
            "rdmsr",
            |p| p.read_msr(0x10),
            &[0xb9, 0x10, 0, 0, 0, 0x0f, 0x32],
        ),
        (
            "ipi",
            |p| p.send_ipi(3, 0x40),
            &[
                0xb9, 0x30, 8, 0, 0, 0xb8, 0x40, 0x40, 0, 0, 0xba, 3, 0, 0, 0, 0x0f, 0x30,
            ],
        ),
        (
            "vmcall",
            |p| p.hypercall(9),
            &[0xb8, 9, 0, 0, 0, 0x0f, 1, 0xc1],
        ),
        (
            "real mode",
            |p| p.real_mode_out(0x10, 7),
            &[0xb0, 7, 0xe6, 0x10, 0xf4],
        ),
        ("invalid", |p| p.invalid(), &[0x0f, 0x0b]),
    ];

#[test]
fn operations_have_their_encodings() {
    for (name, build, expected) in ENCODINGS {
        let mut program = Program::new();
        build(&mut program);
        assert_eq!(program.code(), expected, "{name}");
    }
}

#[test]
fn a_handler_keeps_the_registers_that_operations_use() {
    let mut program = Program::new();
    program.handler(|p| p.halt());
    let code = program.code();
    assert_eq!(code.first_chunk(), Some(&[0x50, 0x51, 0x52, 0x53, 0xf4]));
    assert_eq!(
        code.last_chunk(),
        Some(&[0x5b, 0x5a, 0x59, 0x58, 0x48, 0xcf])
    );
}
