// Go's clients of Vault and of AWS KMS, as their makers publish them, against a running service.
//
// tests/system/test_go_clients.py starts the service and sets the variables that these clients read by themselves:
// VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT, AWS_ENDPOINT_URL, AWS_CA_BUNDLE and the rest of AWS's.
package clients

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	vault "github.com/hashicorp/vault/api"
	bao "github.com/openbao/openbao/api/v2"
	"github.com/sigstore/sigstore/pkg/signature"
	sigstore "github.com/sigstore/sigstore/pkg/signature/kms"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/aws"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/hashivault"
	"gocloud.dev/secrets"
	"gocloud.dev/secrets/awskms"
	"gocloud.dev/secrets/hashivault"
)

var message = []byte("message")

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func vaultClient(t *testing.T) *vault.Client {
	t.Helper()
	client, err := vault.NewClient(vault.DefaultConfig())
	ok(t, err)
	return client
}

func TestVaultAPI(t *testing.T) {
	client := vaultClient(t)
	logical := client.Logical()
	write := func(path string, data map[string]any) map[string]any {
		t.Helper()
		secret, err := logical.Write(path, data)
		ok(t, err)
		if secret == nil {
			return nil
		}
		return secret.Data
	}
	write("transit/keys/go-vault", nil) // a body of null
	write("transit/keys/go-vault/rotate", nil)
	sealed := write("transit/encrypt/go-vault", map[string]any{
		"plaintext": base64.StdEncoding.EncodeToString(message), "key_version": nil, "associated_data": nil,
	})
	opened := write("transit/decrypt/go-vault", map[string]any{"ciphertext": sealed["ciphertext"]})
	if opened["plaintext"] != base64.StdEncoding.EncodeToString(message) {
		t.Fatal(opened)
	}
	write("transit/datakey/plaintext/go-vault", nil)
	write("transit/random", nil)
	listed, err := logical.List("transit/keys")
	ok(t, err)
	if len(listed.Data["keys"].([]any)) == 0 {
		t.Fatal("no keys listed")
	}
	health, err := client.Sys().Health()
	ok(t, err)
	leader, err := client.Sys().Leader()
	ok(t, err)
	status, err := client.Sys().SealStatus()
	ok(t, err)
	if !health.Initialized || leader.HAEnabled || status.Sealed || health.ClusterID != status.ClusterID {
		t.Fatal(health, leader, status)
	}
	mounts, err := client.Sys().ListMounts()
	ok(t, err)
	if mounts["transit/"].Type != "transit" {
		t.Fatal(mounts)
	}
	token, err := client.Auth().Token().LookupSelf()
	ok(t, err)
	if token.Data["id"] != os.Getenv("VAULT_TOKEN") {
		t.Fatal("a token is not shown its own id")
	}
	if _, err := client.Auth().Token().RenewSelf(0); err == nil || !strings.Contains(err.Error(), "not renewable") {
		t.Fatal(err)
	}
	write("transit/keys/go-vault/config", map[string]any{"deletion_allowed": true})
	_, err = logical.Delete("transit/keys/go-vault")
	ok(t, err)
	gone, err := logical.Read("transit/keys/go-vault")
	ok(t, err)
	if gone != nil {
		t.Fatal(gone)
	}
	client.SetNamespace("team-a")
	if _, err := logical.Read("transit/keys/go-vault"); err != nil && !strings.Contains(err.Error(), "namespace") {
		t.Fatal(err)
	}
	if _, err := logical.Write("transit/keys/go-vault", nil); err == nil {
		t.Fatal("a namespace was passed over")
	}
}

func TestOpenBaoAPI(t *testing.T) {
	settings := bao.DefaultConfig()
	settings.Address = os.Getenv("VAULT_ADDR")
	ok(t, settings.ConfigureTLS(&bao.TLSConfig{CACert: os.Getenv("VAULT_CACERT")}))
	client, err := bao.NewClient(settings)
	ok(t, err)
	client.SetToken(os.Getenv("VAULT_TOKEN"))
	_, err = client.Logical().Write("transit/keys/go-bao", map[string]any{"type": "ed25519"})
	ok(t, err)
	made, err := client.Logical().Write("transit/sign/go-bao", map[string]any{
		"input": base64.StdEncoding.EncodeToString(message),
	})
	ok(t, err)
	if !strings.HasPrefix(made.Data["signature"].(string), "vault:v1:") {
		t.Fatal(made.Data)
	}
}

func roundTrip(t *testing.T, keeper *secrets.Keeper) {
	t.Helper()
	defer keeper.Close()
	sealed, err := keeper.Encrypt(context.Background(), message)
	ok(t, err)
	opened, err := keeper.Decrypt(context.Background(), sealed)
	ok(t, err)
	if !bytes.Equal(opened, message) {
		t.Fatal(opened)
	}
	if _, err := keeper.Decrypt(context.Background(), append(sealed[:len(sealed)-4], "AAAA"...)); err == nil {
		t.Fatal("an altered ciphertext was opened")
	}
}

func TestGoCloudWithVault(t *testing.T) {
	roundTrip(t, hashivault.OpenKeeper(vaultClient(t), "go-cloud", nil))
}

func TestGoCloudWithAWS(t *testing.T) {
	settings, err := config.LoadDefaultConfig(context.Background())
	ok(t, err)
	client := kms.NewFromConfig(settings)
	made, err := client.CreateKey(context.Background(), &kms.CreateKeyInput{})
	ok(t, err)
	roundTrip(t, awskms.OpenKeeper(client, *made.KeyMetadata.KeyId, nil))
}

func signAndVerify(t *testing.T, reference, algorithm string, digest crypto.Hash) {
	t.Helper()
	ctx := context.Background()
	signer, err := sigstore.Get(ctx, reference, digest)
	ok(t, err)
	_, err = signer.CreateKey(ctx, algorithm)
	ok(t, err)
	made, err := signer.SignMessage(bytes.NewReader(message))
	ok(t, err)
	ok(t, signer.VerifySignature(bytes.NewReader(made), bytes.NewReader(message)))
	if signer.VerifySignature(bytes.NewReader(made), strings.NewReader("another")) == nil {
		t.Fatal("a signature of another message is valid")
	}
	public, err := signer.PublicKey()
	ok(t, err)
	verifier, err := signature.LoadVerifier(public, digest)
	ok(t, err)
	ok(t, verifier.VerifySignature(bytes.NewReader(made), bytes.NewReader(message)))
}

func TestSigstoreWithVault(t *testing.T) {
	signAndVerify(t, "hashivault://go-cosign-p256", "ecdsa-p256", crypto.SHA256)
	signAndVerify(t, "hashivault://go-cosign-ed25519", "ed25519", crypto.Hash(0))
}

func TestSigstoreWithAWS(t *testing.T) {
	endpoint, err := url.Parse(os.Getenv("AWS_ENDPOINT_URL"))
	ok(t, err)
	signAndVerify(t, "awskms://"+endpoint.Host+"/alias/go-cosign", "ECC_NIST_P256", crypto.SHA256)
}
