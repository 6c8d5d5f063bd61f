using Drover.Workflows.Storage;
using Microsoft.Data.Sqlite;
using SQLitePCL;

namespace Drover.Workflows.Sqlite;

/// <summary>
/// The connection of the one writer thread. Every commit and every checkpoint of every process is made under one OS file
/// lock beside the database: SQLite below 3.51.3 can corrupt the file when two connections commit and checkpoint at once.
/// </summary>
internal sealed class SqliteWriterSession : WriterSession
{
    // 4,000 pages: measured 15-40 % quicker than the default of 1,000, and still small to replay.
    private const long CheckpointBytes = 4_000 * 4_096L;
    private const long RestartBytes = 64L * 1024 * 1024;

    private readonly sqlite3 _handle;
    private readonly FileLock _commitLock;
    private readonly string _walPath;
    private bool _inTransaction;
    private long _dataVersion = -1;

    public SqliteWriterSession(SqliteConnection connection, SqliteDialect dialect, TimeProvider time, FileLock commitLock)
        : base(connection, dialect, time)
    {
        _handle = connection.Handle!;
        _commitLock = commitLock;
        _walPath = dialect.Path + "-wal";
    }

    protected internal override void Begin()
    {
        _commitLock.Take();
        try
        {
            Execute("BEGIN IMMEDIATE");
            _inTransaction = true;
        }
        catch
        {
            _commitLock.Release();
            throw;
        }
    }

    protected internal override void Commit()
    {
        Execute("COMMIT");
        _inTransaction = false;
        try
        {
            Checkpoint();
        }
        finally
        {
            _commitLock.Release();
        }
    }

    protected internal override void Rollback()
    {
        if (!_inTransaction)
            return;
        _inTransaction = false;
        try
        {
            // A full disk or an I/O error may have rolled back already; then autocommit is on again.
            if (raw.sqlite3_get_autocommit(_handle) == 0)
                Execute("ROLLBACK");
        }
        finally
        {
            _commitLock.Release();
        }
    }

    protected internal override bool ForeignCommitSeen()
    {
        long version = Number("PRAGMA data_version");
        bool changed = version != _dataVersion && _dataVersion >= 0;
        _dataVersion = version;
        return changed;
    }

    // Called with the commit lock held; automatic checkpoints are off on every connection.
    private void Checkpoint()
    {
        long size = WalSize();
        if (size < CheckpointBytes)
            return;
        int mode = size > RestartBytes ? raw.SQLITE_CHECKPOINT_TRUNCATE : raw.SQLITE_CHECKPOINT_PASSIVE;
        // A busy result only means that a reader still needs old pages; the next commit tries again.
        _ = raw.sqlite3_wal_checkpoint_v2(_handle, "main", mode, out _, out _);
    }

    private long WalSize()
    {
        var wal = new FileInfo(_walPath);
        return wal.Exists ? wal.Length : 0;
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            Rollback();
            base.Dispose(disposing);
            _commitLock.Dispose();
            return;
        }
        base.Dispose(disposing);
    }
}
