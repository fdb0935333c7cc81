fn main() {
    let facts = plumbline::probes::kernel::KernelFacts::read();
    println!("{facts:#?}");
    let mut p = plumbline::probes::Probes::load(&Default::default(), &facts).unwrap();
    for v in &p.verdicts { println!("{}: {}", v.hook.name, v.describe()); }
    println!("{:?}", p.tasks().map(|t| t.len()));
    println!("{:?}", p.tasks().map(|t| t.last().cloned()));
}
