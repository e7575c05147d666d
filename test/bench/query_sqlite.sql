-- The same for SQLite, which has expression indexes, too.

CREATE INDEX twin_site_battery ON twin (doc ->> '$.tags.site', doc ->> '$.properties.desired.battery');
CREATE INDEX twin_site_temperature ON twin (doc ->> '$.tags.site', doc ->> '$.properties.desired.temperature');
CREATE INDEX twin_site_rssi ON twin (doc ->> '$.tags.site', doc ->> '$.tags.rssi');
CREATE INDEX twin_site_uptime ON twin (doc ->> '$.tags.site', doc ->> '$.tags.uptime');
CREATE INDEX twin_battery_building ON twin (doc ->> '$.properties.desired.battery', doc ->> '$.tags.building');
CREATE INDEX twin_version ON twin (doc ->> '$.properties.desired.fw.version');
CREATE INDEX twin_serial ON twin (doc ->> '$.tags.serial');
CREATE INDEX twin_warm ON twin (doc ->> '$.properties.desired.temperature', doc ->> '$.properties.desired.limit');
ANALYZE;
