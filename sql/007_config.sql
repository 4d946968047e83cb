-- T11: configuration of system and exchanges. Secrets are sealed before they come here
-- (XChaCha20-Poly1305, bound to their row and column); the key is never in the database.

create table system_config (
    config_key text collate "C" primary key,
    config_value text not null,
    config_type text not null check (config_type in ('string', 'number', 'boolean', 'json', 'secret')),
    description text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check (config_type <> 'secret' or config_value like 'sealed:v1:%')
);

comment on table system_config is 'T11: settings by key; see tapeline config';
comment on column system_config.config_key is 'the key';
comment on column system_config.config_value is 'the value; sealed where it is a secret';
comment on column system_config.config_type is 'string, number, boolean, json or secret';
comment on column system_config.description is 'what it is for';
comment on column system_config.created_at is 'when it was first set';
comment on column system_config.updated_at is 'when it was last set';

create table exchange_config (
    exchange_name text collate "C" primary key,
    api_key text check (api_key like 'sealed:v1:%'),
    api_secret text check (api_secret like 'sealed:v1:%'),
    passphrase text check (passphrase like 'sealed:v1:%'),
    sandbox boolean not null default false,
    rate_limit integer not null default 100 check (rate_limit > 0),
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

comment on table exchange_config is 'T11: access to exchanges; see tapeline config';
comment on column exchange_config.exchange_name is 'venue, upper case';
comment on column exchange_config.api_key is 'key of its interface, sealed';
comment on column exchange_config.api_secret is 'secret that belongs to the key, sealed';
comment on column exchange_config.passphrase is 'passphrase, where the venue has one, sealed';
comment on column exchange_config.sandbox is 'whether it is the venue''s sandbox';
comment on column exchange_config.rate_limit is 'requests a minute';
comment on column exchange_config.enabled is 'whether it may be used';
comment on column exchange_config.created_at is 'when it was first set';
comment on column exchange_config.updated_at is 'when it was last set';
