package present

import "holdfast/config"

// SchemaConfig names the JSON record of the settings in force.
const SchemaConfig = "holdfast.config/1"

// ConfigRecord is every setting that holds, and where it came from.
type ConfigRecord struct {
	Envelope
	// File is what was read, "" where there was none.
	File     string          `json:"file"`
	Digest   string          `json:"digest"`
	Settings []SettingRecord `json:"settings"`
}

// SettingRecord is one of them.
type SettingRecord struct {
	Key string `json:"key"`
	// Value and Default are written as in the file.
	Value   string `json:"value"`
	Default string `json:"default"`
	// Line is where it is set, 0 where the default holds.
	Line    int    `json:"line"`
	Meaning string `json:"meaning"`
}

// ConfigRecordOf makes the record.
func ConfigRecordOf(l *config.Loaded) *ConfigRecord {
	r := &ConfigRecord{Envelope: Envelope{Schema: SchemaConfig}, File: l.Path, Digest: l.Digest()}
	for _, f := range l.Fields() {
		r.Settings = append(r.Settings, SettingRecord{Key: f.Key, Value: f.Value, Default: f.Default, Line: f.Line, Meaning: f.Doc})
	}
	return r
}
