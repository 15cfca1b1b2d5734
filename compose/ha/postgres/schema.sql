-- In single-user mode (-j) a statement ends at a semicolon with an empty line behind it.
set role aggregate;

create table witness (
    at_ns bigint, kind text, epoch bigint, run text, pid integer, node text, primary key (run, at_ns, kind)
);

create table plant (epoch bigint, node text, beat bigint) with (fillfactor = 50);

insert into plant values (0, '', 0);
