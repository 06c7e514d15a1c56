// Package spool is planted: reading is allowed in every form, writing in none.
package spool

import (
	"net/http" // want "http: no network door"
	filesystem "os"
	"syscall"

	"golang.org/x/sys/unix"
)

const readOnly = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_CLOEXEC

func right(name string) {
	_, _ = filesystem.Open(name)
	_, _ = filesystem.OpenFile(name, filesystem.O_RDONLY|syscall.O_NOATIME, 0)
	_, _ = unix.Open(name, readOnly, 0)
	_, _ = filesystem.OpenFile("/dev/tty", filesystem.O_RDWR, 0)
	_ = unix.Setgroups(nil)
}

func wrong(name string) {
	_ = filesystem.Rename(name, name)                           // want "state files: calls os.Rename"
	_ = filesystem.WriteFile                                    // want "state files: calls os.WriteFile"
	_, _ = filesystem.OpenFile(name, filesystem.O_WRONLY, 0)    // want "state files: opens with O_WRONLY"
	_, _ = filesystem.OpenFile(name, 0x41, 0)                   // want "state files: bare flags 0x41"
	_, _ = unix.Open(name, unix.O_RDONLY|unix.O_CREAT, 0)       // want "state files: opens with O_CREAT"
	_ = unix.OpenHow{Flags: unix.O_TRUNC}                       // want "state files: opens with O_TRUNC"
	_ = syscall.Unlink(name)                                    // want "state files: calls syscall.Unlink"
	_ = unix.Renameat2(0, name, 0, name, unix.RENAME_NOREPLACE) // want "state files: calls unix.Renameat2"
	_ = http.StatusOK
}
