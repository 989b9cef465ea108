# Run in the tree of the NFS story's disk: what its server exports.
mkdir -p /srv/nfs/claim /srv/nfs/read-only /srv/nfs/sub/inner /srv/secret
echo 'the server wrote this' >/srv/nfs/read-only/file
echo 'not exported' >/srv/secret/file
echo '/srv/nfs *(rw,sync,no_subtree_check,no_root_squash)' >/etc/exports
# A server that comes back lets its former clients in first, for ninety seconds unless told otherwise.
mkdir -p /etc/nfs.conf.d
printf '[nfsd]\ngrace-time=10\nlease-time=10\n' >/etc/nfs.conf.d/story.conf
