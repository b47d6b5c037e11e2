-- What support.db is made of: `sqlite3 support.db < support.sql`. All of it is invented; the addresses lead nowhere.
create table accounts (
  id integer primary key,
  name text not null,
  contact text not null,
  plan text not null check (plan in ('starter', 'team', 'business')),
  status text not null check (status in ('active', 'past_due', 'closed'))
) strict;

create table invoices (
  id text primary key,
  account_id integer not null references accounts (id),
  issued_on text not null,
  amount_cents integer not null check (amount_cents > 0),
  status text not null check (status in ('paid', 'open', 'refunded'))
) strict;

create index invoices_by_account on invoices (account_id, issued_on);

create table drafts (
  id integer primary key,
  account_id integer not null references accounts (id),
  subject text not null,
  body text not null
) strict;

insert into accounts (id, name, contact, plan, status) values
  (1017, 'Northlight Studio', 'office@northlight-studio.example', 'team', 'active'),
  (1023, 'Fernhill Nursery', 'hello@fernhill-nursery.example', 'starter', 'active'),
  (1031, 'Copper Kettle Cafe', 'accounts@copper-kettle.example', 'starter', 'past_due'),
  (1042, 'Harbour Bakery', 'billing@harbour-bakery.example', 'team', 'active'),
  (1055, 'Quarry Lane Cycles', 'shop@quarry-lane-cycles.example', 'business', 'active'),
  (1068, 'Old Mill Press', 'press@old-mill.example', 'starter', 'closed'),
  (1073, 'Saltmarsh Surveys', 'desk@saltmarsh-surveys.example', 'business', 'active'),
  (1086, 'Plum Tree Dental', 'reception@plum-tree.example', 'team', 'active');

insert into invoices (id, account_id, issued_on, amount_cents, status) values
  ('INV-20411', 1017, '2026-03-04', 4900, 'paid'),
  ('INV-20412', 1023, '2026-03-04', 1500, 'paid'),
  ('INV-20413', 1031, '2026-03-04', 1500, 'paid'),
  ('INV-20414', 1042, '2026-03-04', 4900, 'paid'),
  ('INV-20415', 1055, '2026-03-04', 19900, 'paid'),
  ('INV-20416', 1068, '2026-03-04', 1500, 'refunded'),
  ('INV-20417', 1073, '2026-03-04', 19900, 'paid'),
  ('INV-20418', 1086, '2026-03-04', 4900, 'paid'),
  ('INV-20527', 1017, '2026-04-04', 4900, 'paid'),
  ('INV-20528', 1023, '2026-04-04', 1500, 'paid'),
  ('INV-20529', 1031, '2026-04-04', 1500, 'open'),
  ('INV-20530', 1042, '2026-04-04', 4900, 'paid'),
  ('INV-20531', 1055, '2026-04-04', 24900, 'paid'),
  ('INV-20532', 1073, '2026-04-04', 19900, 'paid'),
  ('INV-20533', 1086, '2026-04-04', 4900, 'paid'),
  ('INV-20640', 1017, '2026-05-04', 4900, 'paid'),
  ('INV-20641', 1023, '2026-05-04', 1500, 'paid'),
  ('INV-20642', 1031, '2026-05-04', 1500, 'open'),
  ('INV-20643', 1042, '2026-05-04', 4900, 'paid'),
  ('INV-20644', 1055, '2026-05-04', 24900, 'paid'),
  ('INV-20645', 1073, '2026-05-04', 19900, 'paid'),
  ('INV-20646', 1086, '2026-05-04', 4900, 'paid'),
  ('INV-20659', 1042, '2026-05-06', 4900, 'paid'),
  ('INV-20660', 1073, '2026-05-07', 19900, 'paid');
