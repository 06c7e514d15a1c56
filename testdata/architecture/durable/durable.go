// Package durable is planted: the one place that writes.
package durable

import "os"

var _, _ = os.Rename, os.CreateTemp
