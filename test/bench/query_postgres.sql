-- The table of twins as a DBA would keep it for the queries of this benchmark:
-- the document, and an index for each query that can use one.

SET maintenance_work_mem = '512MB';

-- Containment (doc @> '{"tags": {"site": "site-017"}}') for paths nobody thought of.
CREATE INDEX twin_doc ON twin USING gin (doc jsonb_path_ops);

-- Equality and range, and the order of the page.
CREATE INDEX twin_site_battery ON twin ((doc #>> '{tags,site}'), ((doc #>> '{properties,desired,battery}')::float8));
CREATE INDEX twin_site_temperature ON twin ((doc #>> '{tags,site}'), ((doc #>> '{properties,desired,temperature}')::float8));
CREATE INDEX twin_site_rssi ON twin ((doc #>> '{tags,site}'), ((doc #>> '{tags,rssi}')::float8));
CREATE INDEX twin_site_uptime ON twin ((doc #>> '{tags,site}'), ((doc #>> '{tags,uptime}')::float8));

-- Counts by building of those with a low battery.
CREATE INDEX twin_battery_building ON twin (((doc #>> '{properties,desired,battery}')::float8), (doc #>> '{tags,building}'));
CREATE INDEX twin_building ON twin ((doc #>> '{tags,building}'));

-- Paths that functions are applied to; statistics of them come with the index.
CREATE INDEX twin_version ON twin ((doc #>> '{properties,desired,fw,version}'));
CREATE INDEX twin_serial ON twin ((doc #>> '{tags,serial}'));

-- Parts of serial numbers: what CONTAINS asks, where a DBA expects it.
CREATE EXTENSION pg_trgm;
CREATE INDEX twin_serial_parts ON twin USING gin ((doc #>> '{tags,serial}') gin_trgm_ops);

-- Two paths of one twin.
CREATE INDEX twin_warm ON twin (((doc #>> '{properties,desired,temperature}')::float8), ((doc #>> '{properties,desired,limit}')::float8));

VACUUM ANALYZE twin;
CHECKPOINT;
