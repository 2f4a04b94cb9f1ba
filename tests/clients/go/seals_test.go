// What OpenBao's seal `awskms` asks of AWS KMS, in its order: the key is described, then a key is encrypted without an
// encryption context, and decrypted by its ciphertext alone.
package clients

import (
	"bytes"
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

func TestCallsOfASeal(t *testing.T) {
	ctx := context.Background()
	settings, err := config.LoadDefaultConfig(ctx)
	ok(t, err)
	client := kms.NewFromConfig(settings)
	made, err := client.CreateKey(ctx, &kms.CreateKeyInput{})
	ok(t, err)
	described, err := client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: made.KeyMetadata.KeyId})
	ok(t, err)
	rootKey := bytes.Repeat([]byte{7}, 32)
	sealed, err := client.Encrypt(ctx, &kms.EncryptInput{KeyId: described.KeyMetadata.KeyId, Plaintext: rootKey})
	ok(t, err)
	if *sealed.KeyId != *described.KeyMetadata.Arn {
		t.Fatal(*sealed.KeyId)
	}
	opened, err := client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	ok(t, err)
	if !bytes.Equal(opened.Plaintext, rootKey) {
		t.Fatal("another key was opened")
	}
	sealed.CiphertextBlob[len(sealed.CiphertextBlob)-1] ^= 1
	if _, err := client.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}); err == nil {
		t.Fatal("an altered ciphertext was opened")
	}
}
