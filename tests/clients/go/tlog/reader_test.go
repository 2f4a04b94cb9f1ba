// A reader of the audit log that shares no code with the service: Go's own implementation of transparent logs, as the
// go command uses it, over the files of a log.
//
// tests/system/test_go_tlog.py writes the log and sets TLOG (its directory), TLOG_KEY (its verifier key) and TLOG_OLDER
// (an older checkpoint's file).
package reader

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// folder is a log in a directory, laid out as C2SP tlog-tiles says.
type folder string

func (f folder) read(path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), path))
}

// path is that of tlog-tiles: as Go's, without the height, and bundles of entries in place of raw data.
func path(tile tlog.Tile) string {
	level := strconv.Itoa(tile.L)
	if tile.L == -1 {
		level = "entries"
	}
	_, rest, _ := strings.Cut(strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", tile.H)), "/")
	return "tile/" + level + "/" + rest
}

func (f folder) Height() int { return height }

func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range tiles {
		read, err := f.readTile(tile)
		if err != nil {
			return nil, err
		}
		data = append(data, read)
	}
	return data, nil
}

// readTile falls back on the full tile where a partial one is gone, as clients of tlog-tiles do.
func (f folder) readTile(tile tlog.Tile) ([]byte, error) {
	read, err := f.read(path(tile))
	if os.IsNotExist(err) && tile.W < 1<<height {
		whole := tile
		whole.W = 1 << height
		if read, err = f.read(path(whole)); err == nil {
			read = read[:tile.W*tlog.HashSize]
		}
	}
	return read, err
}

func (f folder) bundle(n, width int64) ([][]byte, error) {
	tile := tlog.Tile{H: height, L: -1, N: n, W: int(width)}
	data, err := f.read(path(tile))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("bundle %d is cut off", n)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries, data = append(entries, data[2:end]), data[end:]
	}
	if int64(len(entries)) != width {
		return nil, fmt.Errorf("bundle %d has %d entries, not %d", n, len(entries), width)
	}
	return entries, nil
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// opened checks the signature of a checkpoint and reads it.
func opened(t *testing.T, content []byte) tlog.Tree {
	t.Helper()
	verifier, err := note.NewVerifier(os.Getenv("TLOG_KEY"))
	ok(t, err)
	signed, err := note.Open(content, note.VerifierList(verifier))
	ok(t, err)
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		t.Fatalf("an odd checkpoint: %q", signed.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	ok(t, err)
	root, err := tlog.ParseHash(lines[2])
	ok(t, err)
	return tlog.Tree{N: size, Hash: root}
}

func theLog(t *testing.T) (folder, tlog.Tree, tlog.HashReader) {
	t.Helper()
	log := folder(os.Getenv("TLOG"))
	if log == "" {
		t.Skip("no log")
	}
	content, err := log.read("checkpoint")
	ok(t, err)
	tree := opened(t, content)
	return log, tree, tlog.TileHashReader(tree, log)
}

func TestEveryEntryIsIncluded(t *testing.T) {
	log, tree, hashes := theLog(t)
	for n := int64(0); n*256 < tree.N; n++ {
		width := min(256, tree.N-n*256)
		entries, err := log.bundle(n, width)
		ok(t, err)
		indexes := make([]int64, width)
		for place := range width {
			indexes[place] = tlog.StoredHashIndex(0, n*256+place)
		}
		proven, err := hashes.ReadHashes(indexes) // checked against the root as they are read
		ok(t, err)
		for place, entry := range entries {
			if tlog.RecordHash(entry) != proven[place] {
				t.Fatalf("entry %d is another", n*256+int64(place))
			}
		}
	}
}

func TestProofsOfInclusion(t *testing.T) {
	log, tree, hashes := theLog(t)
	for index := int64(0); index < tree.N; index += 97 {
		proof, err := tlog.ProveRecord(tree.N, index, hashes)
		ok(t, err)
		entries, err := log.bundle(index/256, min(256, tree.N-index/256*256))
		ok(t, err)
		ok(t, tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entries[index%256])))
	}
}

func TestAnOlderCheckpointIsConsistent(t *testing.T) {
	_, tree, hashes := theLog(t)
	content, err := os.ReadFile(os.Getenv("TLOG_OLDER"))
	ok(t, err)
	older := opened(t, content)
	if older.N >= tree.N {
		t.Fatalf("%d is not older than %d", older.N, tree.N)
	}
	proof, err := tlog.ProveTree(tree.N, older.N, hashes)
	ok(t, err)
	ok(t, tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash))
	older.Hash[0] ^= 1
	if tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash) == nil {
		t.Fatal("another history was taken")
	}
}

// TestTheServicesProofs checks the proofs that the service has made (TLOG_PROOFS), by Go's functions.
func TestTheServicesProofs(t *testing.T) {
	_, tree, _ := theLog(t)
	paths, err := filepath.Glob(filepath.Join(os.Getenv("TLOG_PROOFS"), "*.tlog-proof"))
	ok(t, err)
	if len(paths) == 0 {
		t.Fatal("no proofs")
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		ok(t, err)
		head, checkpoint, _ := bytes.Cut(content, []byte("\n\n"))
		if opened(t, checkpoint) != tree {
			t.Fatal("another checkpoint")
		}
		lines := strings.Split(string(head), "\n")
		if lines[0] != "c2sp.org/tlog-proof@v1" {
			t.Fatal(lines[0])
		}
		index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
		ok(t, err)
		var proof tlog.RecordProof
		for _, line := range lines[2:] {
			hash, err := tlog.ParseHash(line)
			ok(t, err)
			proof = append(proof, hash)
		}
		leaf, err := base64.RawURLEncoding.DecodeString(strings.TrimSuffix(filepath.Base(path), ".tlog-proof"))
		ok(t, err)
		ok(t, tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.Hash(leaf)))
	}
}
