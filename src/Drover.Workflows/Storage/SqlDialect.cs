using System.Collections.Concurrent;
using System.Data.Common;

namespace Drover.Workflows.Storage;

/// <summary>How a database error is to be treated.</summary>
public enum SqlErrorKind
{
    /// <summary>Not known to be harmless: the record fails with it.</summary>
    Other,
    /// <summary>The same batch may be run again.</summary>
    Transient,
    /// <summary>A unique key is taken.</summary>
    UniqueViolation,
    /// <summary>A referenced row does not exist.</summary>
    ForeignKeyViolation,
    /// <summary>The volume that holds the database is full.</summary>
    DiskFull,
    /// <summary>The database itself fails (unreadable, read-only, out of memory): the statement is not to blame.</summary>
    Broken,
}

/// <summary>
/// Everything the two databases do differently. Public only because the driver projects derive from it:
/// not a supported extension point.
/// <para>SQL is written once, in the common subset (<c>ON CONFLICT</c>, <c>RETURNING</c>, non-modifying <c>WITH</c>), with these
/// marks: <c>{p}</c> prefix of a DBOS table, <c>{d}</c> prefix of a Drover table, <c>{now}</c> milliseconds since the Unix epoch
/// by the database's clock, <c>{order}</c> a column that grows with every insert, <c>{skiplocked}</c> the row lock of a claim.</para>
/// </summary>
public abstract class SqlDialect : IAsyncDisposable
{
    private readonly ConcurrentDictionary<string, string> _expanded = new(StringComparer.Ordinal);

    /// <summary>The database's name as people know it.</summary>
    public abstract string Name { get; }

    /// <summary>Where the data lives, without credentials; for messages.</summary>
    public abstract string Location { get; }

    /// <summary>Prefix of a DBOS table.</summary>
    protected abstract string TablePrefix { get; }

    /// <summary>Prefix of a table of Drover's own.</summary>
    protected abstract string OwnPrefix { get; }

    /// <summary>The expression for "now" in milliseconds; a parameter <c>@now</c> is bound by the session when the expression names it.</summary>
    protected abstract string Now { get; }

    /// <summary>A column that tells rows of one millisecond apart in the order of their insertion.</summary>
    protected abstract string InsertOrder { get; }

    /// <summary>The lock clause of a claim; empty where transactions are serial.</summary>
    protected abstract string SkipLocked { get; }

    /// <summary>Expands the marks of a SQL text; each text once.</summary>
    public string Expand(string sql) => _expanded.GetOrAdd(sql, text => text
        .Replace("{p}", TablePrefix, StringComparison.Ordinal)
        .Replace("{d}", OwnPrefix, StringComparison.Ordinal)
        .Replace("{now}", Now, StringComparison.Ordinal)
        .Replace("{order}", InsertOrder, StringComparison.Ordinal)
        .Replace("{skiplocked}", SkipLocked, StringComparison.Ordinal));

    /// <summary>The fragment "column is one of the list in this parameter"; bind the parameter with <see cref="ListValue"/>.</summary>
    public abstract string InList(string column, string parameter);

    /// <summary>The value of a list parameter for <see cref="InList"/>.</summary>
    public abstract object ListValue(IReadOnlyCollection<string> values);

    /// <summary>Says how an error is to be treated.</summary>
    public abstract SqlErrorKind Classify(Exception error);

    /// <summary>Runs read-only work on a reader session; <paramref name="work"/> must not keep the session.</summary>
    public abstract ValueTask<T> ReadAsync<T>(TimeProvider time, Func<SqlSession, T> work, CancellationToken cancellationToken);

    /// <summary>Opens the connection on which a checkpoint writer commits. Called on the writer's own thread.</summary>
    protected internal abstract WriterSession OpenWriter(TimeProvider time);

    /// <summary>Numbered migration scripts of the engine, in order; each is one transaction.</summary>
    protected internal abstract IReadOnlyList<string> EngineScripts { get; }

    /// <summary>
    /// Takes the life lock of an executor: held until disposed, or until the process ends however it ends.
    /// Null when another living process holds it.
    /// </summary>
    protected internal abstract IDisposable? TryLockExecutor(string executorId);

    /// <summary>True when the holder of the executor's life lock is proved dead.</summary>
    protected internal abstract bool IsExecutorDead(string executorId);

    /// <summary>Removes what <see cref="TryLockExecutor"/> of a dead executor left behind.</summary>
    protected internal abstract void ForgetExecutor(string executorId);

    /// <summary>Tells the other processes that use this database that something was committed; a hint, never a promise.</summary>
    protected internal abstract void Nudge();

    /// <summary>Calls <paramref name="onSignal"/> when another process may have committed something. Disposing ends it.</summary>
    protected internal abstract IDisposable Listen(Action onSignal);

    /// <inheritdoc/>
    public abstract ValueTask DisposeAsync();
}

/// <summary>A session that commits: one per writer thread.</summary>
public abstract class WriterSession(DbConnection connection, SqlDialect dialect, TimeProvider time) : SqlSession(connection, dialect, time)
{
    /// <summary>Begins the transaction of a batch. Blocks while another process commits.</summary>
    protected internal abstract void Begin();

    /// <summary>False when the database has ended the transaction by itself: a statement would then commit alone.</summary>
    protected internal abstract bool InTransaction { get; }

    /// <summary>Commits. When it throws, the outcome is unknown and the batch must be run again.</summary>
    protected internal abstract void Commit();

    /// <summary>Undoes the transaction; a no-op when there is none.</summary>
    protected internal abstract void Rollback();

    /// <summary>Called when nothing waits: true when another process has committed since the last call.</summary>
    protected internal abstract bool ForeignCommitSeen();
}
