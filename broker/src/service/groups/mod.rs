//! The service `Groups`: thin adapters over the coordinators of [`crate::coordinator::groups`].
//!
//! - [`check`]: every field of a request, before a coordinator sees it; [`names`]: between identities and names;
//! - [`offsets`], [`describe`]: the calls with one answer;
//! - [`member`]: a member as its stream knows it; [`session`], [`consume`]: the streams, and how they end badly ([`ended`]);
//! - [`forward`]: groups whose coordinator is at another broker.

mod check;
mod consume;
mod describe;
mod ended;
mod forward;
mod member;
mod names;
mod offsets;
pub(crate) mod sample;
mod session;

use std::sync::Arc;

use taffrail_proto::v1::{self, Reason};
use tonic::{Request, Response, Status, Streaming};

use self::forward::elsewhere;
use super::Broker;
use super::call::{Call, finish};
use super::status::unknown_outcome;
use crate::coordinator::groups::Groups;
use crate::metrics::Rpc;
use crate::peers::Purpose;

/// The service `Groups`.
pub(super) struct Service {
    broker: Arc<Broker>,
    groups: Arc<Groups>,
}

impl Service {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        Self { broker: Arc::clone(broker), groups: Arc::clone(&broker.groups) }
    }
}

/// A call with one answer about one group: counted, carried out here or where its coordinator is, answered.
macro_rules! unary {
    ($service:expr, $request:expr, $rpc:ident, $carry_out:ident, $method:ident) => {{
        let metrics = &$service.broker.metrics;
        let _counted = metrics.rpc(Rpc::$rpc).call();
        let call = Call::of(&$request)?;
        let request = $request.into_inner();
        let carry_out = async {
            match elsewhere(&$service.broker, &$service.groups, &call, (&request.group, Purpose::Control))? {
                None => $service.$carry_out(&call, request).await,
                // In a box: a call that is carried out here pays for no room for it.
                Some(coordinator) => {
                    let answered = Box::pin(coordinator.client().$method(call.forward(request))).await;
                    coordinator.answer(answered)
                }
            }
        };
        let answered = tokio::select! {
            answered = carry_out => answered,
            () = call.overdue() => Err(unknown_outcome(Reason::RequestTimeout, "the deadline passed").into()),
        };
        finish(metrics, answered)
    }};
}

#[tonic::async_trait]
impl v1::groups_server::Groups for Service {
    type ConsumeStream = tokio_stream::wrappers::ReceiverStream<Result<v1::ConsumeResponse, Status>>;
    type SessionStream = session::Answers;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let (call, broker, groups) = (Call::of(&request)?, Arc::clone(&self.broker), Arc::clone(&self.groups));
        Ok(Response::new(consume::begin(broker, groups, call, request.into_inner())))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (call, broker, groups) = (Call::of(&request)?, Arc::clone(&self.broker), Arc::clone(&self.groups));
        Ok(Response::new(session::begin(broker, groups, call, request.into_inner())))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        unary!(self, request, CommitOffsets, commit, commit_offsets)
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        unary!(self, request, FetchOffsets, fetch, fetch_offsets)
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::ListGroups).call();
        let call = Call::of(&request)?;
        let answered = tokio::select! {
            answered = self.list(&call, request.into_inner()) => answered,
            () = call.overdue() => Err(unknown_outcome(Reason::RequestTimeout, "the deadline passed").into()),
        };
        finish(metrics, answered)
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        unary!(self, request, DescribeGroup, describe, describe_group)
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        unary!(self, request, DeleteGroup, delete, delete_group)
    }

    async fn reset_offsets(
        &self,
        request: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        unary!(self, request, ResetOffsets, reset, reset_offsets)
    }
}
